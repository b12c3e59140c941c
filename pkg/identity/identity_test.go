package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

func newStore(t *testing.T, ca *CA, p Peer) *Store {
	t.Helper()
	s, err := NewStore(filepath.Join(t.TempDir(), p.Name))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Certify(ca, p, []string{"127.0.0.1", "localhost"}, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake runs both ends over a pipe and returns each end's error and what the server saw.
func handshake(client, server *tls.Config) (seen tls.ConnectionState, clientErr, serverErr error) {
	a, b := net.Pipe()
	done := make(chan error, 1)
	s := tls.Server(b, server)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // the client learns of a refusal with its first read
		}
		if err != nil {
			_ = b.Close()
		}
		done <- err
	}()
	c := tls.Client(a, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = a.Close()
	serverErr = <-done
	return s.ConnectionState(), clientErr, serverErr
}

func TestRolesAreCheckedNotOnlyTheCA(t *testing.T) {
	ca, _ := NewCA("c")
	other, _ := NewCA("c")
	coord := newStore(t, ca, Peer{Cluster: "c", Role: RoleCoordinator, Name: "c1"})
	agent := newStore(t, ca, Peer{Cluster: "c", Role: RoleAgent, Name: "a1", Group: "g"})
	alien := newStore(t, other, Peer{Cluster: "c", Role: RoleCoordinator, Name: "c1"})
	cousin := newStore(t, ca, Peer{Cluster: "d", Role: RoleCoordinator, Name: "c1"})
	server := ServerTLS(coord, tls.RequireAndVerifyClientCert)
	seen, cerr, serr := handshake(ClientTLS(agent, RoleCoordinator), server)
	if cerr != nil || serr != nil {
		t.Fatalf("agent to coordinator: %v, %v", cerr, serr)
	}
	p, err := PeerOf(seen)
	if err != nil || p.Role != RoleAgent || p.Name != "a1" || p.Group != "g" || p.Actor() != "agent a1" {
		t.Errorf("the server saw %+v, %v", p, err)
	}
	if p.Key != agent.Pin() {
		t.Error("PeerOf's key is not the agent's")
	}
	if _, cerr, _ := handshake(ClientTLS(agent, RoleCoordinator), ServerTLS(agent, tls.NoClientCert)); !fault.Is(cerr, fault.Denied) {
		t.Errorf("an agent served as a coordinator: %v", cerr)
	}
	for name, s := range map[string]*Store{"another CA": alien, "another cluster": cousin} {
		if _, _, serr := handshake(PinnedTLS(s.Certificate, coord.Pin()), server); !fault.Is(serr, fault.Unauthenticated) {
			t.Errorf("%s was let in: %v", name, serr)
		}
	}
	if _, _, serr := handshake(PinnedTLS(nil, coord.Pin()), server); serr == nil {
		t.Error("a client without a certificate was let in")
	}
	seen, cerr, serr = handshake(PinnedTLS(nil, coord.Pin()), ServerTLS(coord, tls.VerifyClientCertIfGiven))
	if cerr != nil || serr != nil {
		t.Fatalf("optional client certificate: %v, %v", cerr, serr)
	}
	if _, err := PeerOf(seen); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("PeerOf without a certificate: %v", err)
	}
}

func TestRamdiskCAIssuesOnlyRamdisksOfItsGroup(t *testing.T) {
	ca, _ := NewCA("c")
	agentPeer := Peer{Cluster: "c", Role: RoleAgent, Name: "a1", Group: "rack1"}
	agent := newStore(t, ca, agentPeer)
	other := newStore(t, ca, Peer{Cluster: "c", Role: RoleAgent, Name: "a2", Group: "rack1"})
	csr, err := agent.RamdiskCSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.IssueIntermediate(csr, agentPeer, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.PutRamdiskCA(chain); err != nil {
		t.Fatal(err)
	}
	inter, err := agent.RamdiskCA()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(p Peer) (*tls.Certificate, error) {
		key, _ := NewKey()
		csr, _ := NewCSR(key)
		chain, err := inter.Issue(csr, p, nil, RamdiskTTL)
		if err != nil {
			return nil, err
		}
		return &tls.Certificate{Certificate: chain, PrivateKey: key}, nil
	}
	good, err := issue(Peer{Cluster: "c", Role: RoleRamdisk, Name: "n1", Group: "rack1", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	// Another agent of the group accepts it.
	seen, cerr, serr := handshake(PinnedTLS(func() *tls.Certificate { return good }, other.Pin()), ServerTLS(other, tls.RequireAndVerifyClientCert))
	if cerr != nil || serr != nil {
		t.Fatalf("ramdisk to the other agent: %v, %v", cerr, serr)
	}
	if p, err := PeerOf(seen); err != nil || p.Boot != "b" || p.Name != "n1" {
		t.Errorf("saw %+v, %v", p, err)
	}
	wrong, err := issue(Peer{Cluster: "c", Role: RoleRamdisk, Name: "n1", Group: "rack2", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, serr := handshake(PinnedTLS(func() *tls.Certificate { return wrong }, other.Pin()), ServerTLS(other, tls.RequireAndVerifyClientCert)); !fault.Is(serr, fault.Denied) {
		t.Errorf("a ramdisk of another group was let in: %v", serr)
	}
	if _, err := issue(Peer{Cluster: "c", Role: RoleCoordinator, Name: "c9"}); !fault.Is(err, fault.Denied) {
		t.Errorf("the ramdisk CA issued a coordinator: %v", err)
	}
	// Even with the check in Issue bypassed, the chain is refused.
	key, _ := NewKey()
	csr2, _ := NewCSR(key)
	forged, err := (&CA{cert: inter.cert, key: inter.key}).Issue(csr2, Peer{Cluster: "c", Role: RoleCoordinator, Name: "c9"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	fc := &tls.Certificate{Certificate: append(forged, chain...), PrivateKey: key}
	if _, _, serr := handshake(PinnedTLS(func() *tls.Certificate { return fc }, other.Pin()), ServerTLS(other, tls.RequireAndVerifyClientCert)); !fault.Is(serr, fault.Denied) {
		t.Errorf("a coordinator's certificate from a ramdisk CA was let in: %v", serr)
	}
}

func TestPinsAndJoinHash(t *testing.T) {
	ca, _ := NewCA("c")
	coord := newStore(t, ca, Peer{Cluster: "c", Role: RoleCoordinator, Name: "c1"})
	agent := newStore(t, ca, Peer{Cluster: "c", Role: RoleAgent, Name: "a1", Group: "g"})
	if _, cerr, _ := handshake(PinnedTLS(nil, sha256.Sum256([]byte("x"))), ServerTLS(coord, tls.NoClientCert)); !fault.Is(cerr, fault.Unauthenticated) {
		t.Errorf("a wrong pin: %v", cerr)
	}
	if _, cerr, serr := handshake(JoinTLS(ca.Hash()), ServerTLS(coord, tls.VerifyClientCertIfGiven)); cerr != nil || serr != nil {
		t.Errorf("join: %v, %v", cerr, serr)
	}
	if _, cerr, _ := handshake(JoinTLS(sha256.Sum256([]byte("x"))), ServerTLS(coord, tls.VerifyClientCertIfGiven)); !fault.Is(cerr, fault.Unauthenticated) {
		t.Errorf("join to another cluster: %v", cerr)
	}
	if _, cerr, _ := handshake(JoinTLS(ca.Hash()), ServerTLS(agent, tls.NoClientCert)); !fault.Is(cerr, fault.Denied) {
		t.Errorf("an agent posed as a coordinator to a joiner: %v", cerr)
	}
}

func TestStoreReopensAndRenews(t *testing.T) {
	ca, _ := NewCA("c")
	s := newStore(t, ca, Peer{Cluster: "c", Role: RoleOperator, Name: "alice"})
	again, err := OpenStore(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if again.Peer() != s.Peer() || again.Pin() != s.Pin() {
		t.Error("the reopened store is another")
	}
	if left := time.Until(again.RenewAt()); left < LeafTTL/2 || left > LeafTTL {
		t.Errorf("renew in %v", left)
	}
	if err := os.Chmod(filepath.Join(s.Dir(), keyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(s.Dir()); !fault.Is(err, fault.Denied) {
		t.Errorf("a key that others may read was used: %v", err)
	}
}

func TestJoinTokenSurvivesPasting(t *testing.T) {
	tok := NewJoinToken(sha256.Sum256([]byte("ca")), RoleAgent, "rack1-a", "rack1", []string{"127.0.0.1:7600"})
	back, err := ParseJoinToken("  " + tok.Encode() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if back.Hash() != tok.Hash() || back.Name != tok.Name || back.Group != tok.Group || back.Role != tok.Role || back.CAHash != tok.CAHash {
		t.Errorf("got %+v", back)
	}
	for _, bad := range []string{"", "x", tok.Encode()[:40], tokenPrefix + "e30"} {
		if _, err := ParseJoinToken(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseJoinToken(%q) = %v", bad, err)
		}
	}
}

// TestNoCertificateOutlivesItsCA: a ramdisk CA near its end gave out certificates for a week, and one past it went on
// issuing; nobody could use either.
func TestNoCertificateOutlivesItsCA(t *testing.T) {
	root, err := NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := s.CSR()
	if err != nil {
		t.Fatal(err)
	}
	me := Peer{Cluster: "c", Role: RoleAgent, Name: "a", Group: "g"}
	chain, err := root.Issue(csr, me, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(chain, root.CertDER()); err != nil {
		t.Fatal(err)
	}
	rcsr, err := s.RamdiskCSR()
	if err != nil {
		t.Fatal(err)
	}
	middle, err := root.IssueIntermediate(rcsr, me, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutRamdiskCA(middle); err != nil {
		t.Fatal(err)
	}
	ca, err := s.RamdiskCA()
	if err != nil {
		t.Fatal(err)
	}
	machine := Peer{Cluster: "c", Role: RoleRamdisk, Name: "n", Group: "g", Boot: "b"}
	leaf, err := ca.Issue(csr, machine, nil, 7*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(leaf[0])
	if err != nil || !cert.NotAfter.Equal(ca.Until()) {
		t.Errorf("a week's certificate of a CA that ends at %v ends at %v (%v)", ca.Until(), cert.NotAfter, err)
	}
	over := *ca.cert
	over.NotAfter = time.Now().Add(-time.Second)
	if _, err := (&CA{cert: &over, key: ca.key, chain: ca.chain}).Issue(csr, machine, nil, time.Hour); !fault.Is(err, fault.Expired) {
		t.Errorf("a CA that is over issues: %v", err)
	}
}
