package downlink

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/identity"
)

const (
	nodeID = "node-1"
	bootA  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	bootB  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	secret = "5ec7e7"
	macA   = "52:54:00:00:00:01"
)

// fakeClock is moved by the test.
type fakeClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *fakeClock) Now() time.Time { return time.Now() }
func (c *fakeClock) Boottime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

// rack is one agent with its service on a loopback socket.
type rack struct {
	*Service
	clock    *fakeClock
	url      string
	pin      [32]byte
	edges    chan *farrierv1.Edge
	outcomes chan *farrierv1.StepOutcome
	progress chan *farrierv1.StepProgress
	claims   chan string
}

func newCA(t *testing.T) *identity.CA {
	t.Helper()
	ca, err := identity.NewCA("lab")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newRack(t *testing.T, root *identity.CA, name, group string) *rack {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	store, err := identity.NewStore(t.TempDir())
	must(err)
	me := identity.Peer{Cluster: "lab", Role: identity.RoleAgent, Name: name, Group: group}
	must(store.Certify(root, me, nil, 0))
	csr, err := store.RamdiskCSR()
	must(err)
	chain, err := root.IssueIntermediate(csr, me, 0)
	must(err)
	must(store.PutRamdiskCA(chain))
	ca, err := store.RamdiskCA()
	must(err)
	r := &rack{clock: &fakeClock{}, pin: store.Pin(), edges: make(chan *farrierv1.Edge, 100), outcomes: make(chan *farrierv1.StepOutcome, 100),
		progress: make(chan *farrierv1.StepProgress, 100), claims: make(chan string, 100)}
	r.Service, err = New(Config{Store: store, CA: ca, Clock: r.clock,
		OnEdge:     func(e *farrierv1.Edge) { r.edges <- e },
		OnOutcome:  func(o *farrierv1.StepOutcome) { r.outcomes <- o },
		OnProgress: func(p *farrierv1.StepProgress) { r.progress <- p },
		OnClaim:    func(id string) { r.claims <- id },
		Manifest: func(sha string) (*farrierv1.GetManifestResponse, error) {
			return &farrierv1.GetManifestResponse{Sha256: sha}, nil
		},
		Images: http.NotFoundHandler(),
	})
	must(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	r.url = "https://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

func assignment(edit func(*farrierv1.Assign)) *farrierv1.Assign {
	a := &farrierv1.Assign{Node: nodeID, Epoch: 1, Token: 10, Ports: []*farrierv1.AssignedPort{{Address: macA, PxeEnabled: true}},
		Boot: &farrierv1.BootAttempt{BootId: bootA, Secret: secret, Flow: 7, ExpiresIn: durationpb.New(30 * time.Minute)}}
	if edit != nil {
		edit(a)
	}
	return a
}

func (r *rack) assign(t *testing.T, edit func(*farrierv1.Assign)) {
	t.Helper()
	if err := r.Assign(assignment(edit)); err != nil {
		t.Fatal(err)
	}
}

// edge waits for the next edge.
func (r *rack) edge(t *testing.T, kind string) *farrierv1.Edge {
	t.Helper()
	select {
	case e := <-r.edges:
		if e.Kind != kind {
			t.Fatalf("edge %s, want %s", e.Kind, kind)
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatalf("no edge %s", kind)
		return nil
	}
}

func (r *rack) noEdge(t *testing.T) {
	t.Helper()
	select {
	case e := <-r.edges:
		t.Errorf("edge %s: %s", e.Kind, e.Detail)
	default:
	}
}

// ramdisk is the machine's side.
type ramdisk struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	csr  []byte
	cert *tls.Certificate
}

func newRamdisk(t *testing.T) *ramdisk {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return &ramdisk{t: t, key: key, csr: csr}
}

// to dials an agent with what certificate the ramdisk has now.
func (m *ramdisk) to(r *rack) farrierv1connect.RamdiskServiceClient {
	return farrierv1connect.NewRamdiskServiceClient(m.client(r, true), r.url)
}

func (m *ramdisk) client(r *rack, http2 bool) *http.Client {
	cert := m.cert
	tr := &http.Transport{TLSClientConfig: identity.PinnedTLS(func() *tls.Certificate { return cert }, r.pin), ForceAttemptHTTP2: http2}
	if !http2 {
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	m.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (m *ramdisk) lookup(r *rack) (*farrierv1.LookupResponse, error) {
	return m.to(r).Lookup(m.t.Context(), &farrierv1.LookupRequest{BootId: bootA, Secret: secret, CsrDer: m.csr, Macs: []string{"52-54-00-00-00-01"}})
}

// enter looks up and takes the certificate.
func (m *ramdisk) enter(r *rack) farrierv1connect.RamdiskServiceClient {
	m.t.Helper()
	resp, err := m.lookup(r)
	if err != nil {
		m.t.Fatal(err)
	}
	m.cert = &tls.Certificate{Certificate: resp.ChainDer, PrivateKey: m.key}
	return m.to(r)
}
