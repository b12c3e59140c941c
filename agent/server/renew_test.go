package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farrier-project/farrier/agent/config"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// issuer is a coordinator that gives out certificates, and nothing else.
type issuer struct {
	farrierv1connect.UnimplementedJoinServiceHandler
	ca      *identity.CA
	me      identity.Peer
	ramdisk time.Duration // life of the ramdisk CA that it gives out
}

// Renew implements farrierv1connect.JoinServiceHandler.
func (i *issuer) Renew(_ context.Context, q *farrierv1.RenewRequest) (*farrierv1.RenewResponse, error) {
	chain, err := i.ca.Issue(q.CsrDer, i.me, nil, 0)
	if err != nil {
		return nil, err
	}
	middle, err := i.ca.IssueIntermediate(q.IntermediateCsrDer, i.me, i.ramdisk)
	return &farrierv1.RenewResponse{ChainDer: chain, CaDer: i.ca.CertDER(), IntermediateChainDer: middle, RackAddresses: []string{"127.0.0.1:2"}}, err
}

// Join implements farrierv1connect.JoinServiceHandler.
func (i *issuer) Join(ctx context.Context, q *farrierv1.JoinRequest) (*farrierv1.JoinResponse, error) {
	r, err := i.Renew(ctx, &farrierv1.RenewRequest{CsrDer: q.CsrDer, IntermediateCsrDer: q.IntermediateCsrDer})
	return &farrierv1.JoinResponse{ChainDer: r.GetChainDer(), CaDer: r.GetCaDer(), IntermediateChainDer: r.GetIntermediateChainDer(),
		RackAddresses: r.GetRackAddresses(), ApiAddresses: r.GetRackAddresses()}, err
}

// certify gives the directory the agent's certificate, and a ramdisk CA with a life of its own.
func certify(t *testing.T, cfg config.Config, ca *identity.CA, me identity.Peer, ramdisk time.Duration) {
	t.Helper()
	store, err := identity.NewStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Certify(ca, me, nil, 0); err != nil {
		t.Fatal(err)
	}
	csr, err := store.RamdiskCSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.IssueIntermediate(csr, me, ramdisk)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutRamdiskCA(chain); err != nil {
		t.Fatal(err)
	}
}

// serveJoin is a coordinator's API with the issuer behind it; the agent's directory knows its address.
func serveJoin(t *testing.T, cfg config.Config, i *issuer) {
	t.Helper()
	c := config.Config{Data: t.TempDir()}
	certify(t, c, i.ca, identity.Peer{Cluster: "test", Role: identity.RoleAgent, Name: "unused", Group: "g"}, 0)
	store, err := identity.OpenStore(identityDir(c))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Certify(i.ca, identity.Peer{Cluster: "test", Role: identity.RoleCoordinator, Name: "c1"}, nil, 0); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(farrierv1connect.NewJoinServiceHandler(i))
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(store, tls.VerifyClientCertIfGiven)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	if err := writeJSON(coordinatorsFile(cfg.Data), coordinators{[]string{"127.0.0.1:1"}, []string{ln.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
}

// heard passes on the messages of a log.
type heard struct {
	slog.Handler
	messages chan string
}

func (h heard) Enabled(context.Context, slog.Level) bool { return true }
func (h heard) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h heard) Handle(_ context.Context, r slog.Record) error {
	select {
	case h.messages <- r.Message:
	default:
	}
	return nil
}

// TestRenewedRamdiskCAIsUsed: a renewed ramdisk CA lay on disk until the next restart; when the one of the start had
// ended, every ramdisk got a certificate that the agent itself refused. The ramdisk CA ends before the agent's own
// certificate here, and is what makes the renewal due.
func TestRenewedRamdiskCAIsUsed(t *testing.T) {
	cfg := joined(t)
	cfg.Coordinators = nil
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	me := identity.Peer{Cluster: "test", Role: identity.RoleAgent, Name: "rack1-a", Group: "rack1"}
	certify(t, cfg, ca, me, time.Minute) // with its backdated hour, two thirds of its life are over
	serveJoin(t, cfg, &issuer{ca: ca, me: me})
	messages := make(chan string, 1000)
	a, stop := upWith(t, cfg, slog.New(heard{slog.DiscardHandler, messages}))
	defer stop()
	for m := range messages {
		if m == "certificate renewed" {
			break
		}
	}
	as := &farrierv1.Assign{Node: "n1", Epoch: 1, Token: 1, Boot: &farrierv1.BootAttempt{BootId: "b1", Secret: "5ec2e7", ExpiresIn: durationpb.New(time.Hour)}}
	if err := a.down.Assign(as); err != nil {
		t.Fatal(err)
	}
	k, err := identity.NewStore(filepath.Join(t.TempDir(), "ramdisk"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := k.CSR()
	if err != nil {
		t.Fatal(err)
	}
	res, err := a.down.Lookup(t.Context(), &farrierv1.LookupRequest{BootId: "b1", Secret: "5ec2e7", CsrDer: csr, Macs: []string{"52:54:00:00:00:01"}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, middle := parsed(t, res.ChainDer[0]), parsed(t, res.ChainDer[1])
	if got := time.Until(middle.NotAfter); got < identity.IntermediateTTL/2 {
		t.Errorf("the ramdisk's certificate is of the CA that ends in %v", got)
	}
	if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || leaf.NotAfter.After(middle.NotAfter) {
		t.Error("the ramdisk's certificate outlives its CA")
	}
	if due := time.Until(a.renewAt()); due < 24*time.Hour {
		t.Errorf("the next renewal is due in %v", due)
	}
	if known, err := a.coordinators(); err != nil || !slices.Equal(known, []string{"127.0.0.1:2"}) {
		t.Errorf("the coordinators are now %v, %v", known, err)
	}
}

func parsed(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAnAgentThatWasOffForAMonthLostItsJournal: with a certificate that had ended it ran on and reached nobody, and a token
// was refused in its directory, so that it had to begin with an empty one.
func TestAnAgentThatWasOffForAMonthLostItsJournal(t *testing.T) {
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	me := identity.Peer{Cluster: "test", Role: identity.RoleAgent, Name: "rack1-a", Group: "rack1"}
	cfg := joined(t)
	cfg.Data = t.TempDir()
	certify(t, cfg, ca, me, 0)
	serveJoin(t, cfg, &issuer{ca: ca, me: me})
	at, err := readCoordinators(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	token := identity.NewJoinToken(ca.Hash(), identity.RoleAgent, me.Name, me.Group, at.API).Encode()
	if err := Join(t.Context(), cfg, env(), JoinOptions{Token: token}); !fault.Is(err, fault.Exists) {
		t.Errorf("joined with a certificate that is good: %v", err)
	}
	old, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Certify(ca, me, nil, -time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), cfg, env()); !fault.Is(err, fault.Expired) {
		t.Errorf("run with a certificate that has ended: %v", err)
	}
	other := identity.NewJoinToken(ca.Hash(), identity.RoleAgent, "rack1-b", me.Group, at.API).Encode()
	if err := Join(t.Context(), cfg, env(), JoinOptions{Token: other}); !fault.Is(err, fault.Exists) {
		t.Errorf("joined as another: %v", err)
	}
	if err := Join(t.Context(), cfg, env(), JoinOptions{Token: token}); err != nil {
		t.Fatal(err)
	}
	now, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if ended(now) || now.Pin() != old.Pin() {
		t.Errorf("it ends %v, with the key of before: %v", now.Certificate().Leaf.NotAfter, now.Pin() == old.Pin())
	}
}
