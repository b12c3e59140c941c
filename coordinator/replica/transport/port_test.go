package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/pkg/identity"
)

const testCluster = "0123456789abcdef"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func issue(t *testing.T, ca *identity.CA, p identity.Peer) *identity.Store {
	t.Helper()
	s, err := identity.NewStore(filepath.Join(t.TempDir(), "id"))
	must(t, err)
	must(t, s.Certify(ca, p, nil, time.Hour))
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

// TestRaftPortRefuses: certificates of the same CA with another role, of another CA, and none at all get no connection.
func TestRaftPortRefuses(t *testing.T) {
	ca, err := identity.NewCA(testCluster)
	must(t, err)
	other, err := identity.NewCA(testCluster)
	must(t, err)
	own := issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c1"})
	type delivery struct {
		member  string
		message string
	}
	heard := make(chan delivery, 8)
	s := Listen(PortOptions{
		Listener: listen(t), Identity: own, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Heard: func(member string, message io.Reader) {
			raw, err := io.ReadAll(message)
			if err != nil {
				t.Errorf("a message of %s: %v", member, err)
			}
			heard <- delivery{member, string(raw)}
		},
		HungUp: func(string) {}, Refuse: func(identity.Peer) error { return nil },
	})
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	for name, cfg := range map[string]*tls.Config{
		"an agent":      identity.ClientTLS(issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleAgent, Name: "rack1-a", Group: "rack1"}), identity.RoleCoordinator),
		"an operator":   identity.ClientTLS(issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleOperator, Name: "alice"}), identity.RoleCoordinator),
		"another CA":    identity.ClientTLS(issue(t, other, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c2"}), identity.RoleCoordinator),
		"no one at all": {InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
	} {
		for _, proto := range []string{protoRaft, protoSide} {
			cfg := cfg.Clone()
			cfg.NextProtos = []string{proto}
			if name == "another CA" {
				cfg.VerifyConnection = nil // it would refuse us as well
			}
			c, err := tls.Dial("tcp", s.Addr().String(), cfg)
			if err != nil {
				continue
			}
			// In TLS 1.3 the refusal comes with the first read.
			_, err = c.Write([]byte("hello"))
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			if err == nil {
				t.Errorf("%s was let in (%s)", name, proto)
			}
			c.Close()
		}
	}
	// A coordinator gets in, and its side messages arrive under the name in its certificate: the first to arrive at all.
	must(t, s.Send(t.Context(), s.Addr().String(), []byte("seventy-seven")))
	if d := <-heard; d.member != "c1" || d.message != "seventy-seven" {
		t.Errorf("heard %+v", d)
	}
	c, err := s.dial(t.Context(), s.Addr().String(), protoRaft)
	must(t, err)
	if in := <-accepted; in == nil {
		t.Error("a coordinator was refused")
	} else {
		in.Close()
	}
	c.Close()
	must(t, s.Close())
	s.Wait()
	if in, open := <-accepted; open {
		t.Errorf("a connection too many from %s", in.RemoteAddr())
	}
	if _, err := s.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// TestRefusedWhileOpen: a coordinator that is refused from some moment on is cut off at once, and gets in no more; others stay. A
// connection that has ended is not counted as open.
func TestRefusedWhileOpen(t *testing.T) {
	ca, err := identity.NewCA(testCluster)
	must(t, err)
	coordinator := func(name string) *identity.Store {
		return issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: name})
	}
	var gone atomic.Pointer[string]
	hungUp := make(chan string, 8)
	s := Listen(PortOptions{
		Listener: listen(t), Identity: coordinator("c1"), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Heard: func(member string, _ io.Reader) { t.Errorf("%s was heard", member) }, HungUp: func(member string) { hungUp <- member },
		Refuse: func(p identity.Peer) error {
			if name := gone.Load(); name != nil && *name == p.Name {
				return errors.New("it is taken back")
			}
			return nil
		},
	})
	caller := func(name string) *Port {
		return Listen(PortOptions{Listener: listen(t), Identity: coordinator(name), Log: slog.New(slog.DiscardHandler)})
	}
	two, three := caller("c2"), caller("c3")
	dial := func(from *Port) (out, in net.Conn) {
		out, err := from.Dial(raft.ServerAddress(s.Addr().String()), 5*time.Second)
		must(t, err)
		in, err = s.Accept()
		must(t, err)
		return out, in
	}
	ended, in := dial(two)
	must(t, ended.Close())
	if _, err := in.Read(make([]byte, 1)); err == nil {
		t.Error("a byte came on a connection that ended")
	}
	must(t, in.Close())
	if name := <-hungUp; name != "c2" {
		t.Errorf("%s hung up", name)
	}
	open, _ := dial(two)
	stays, inStays := dial(three)
	s.mu.Lock()
	n := len(s.open)
	s.mu.Unlock()
	if n != 2 {
		t.Errorf("%d connections are counted, 2 are open", n)
	}
	name := "c2"
	gone.Store(&name)
	s.CutRefused()
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("a byte came on a connection that was cut")
	}
	if c, err := two.Dial(raft.ServerAddress(s.Addr().String()), 5*time.Second); err == nil {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("it got in again")
		}
		c.Close()
	}
	if err := two.Send(t.Context(), s.Addr().String(), []byte("x")); err != nil {
		t.Log(err) // or it is lost: Heard says if it is not
	}
	_, err = stays.Write([]byte("x"))
	must(t, err)
	_, err = io.ReadFull(inStays, make([]byte, 1))
	must(t, err)
	for _, p := range []*Port{s, two, three} {
		must(t, p.Close())
	}
	inStays.Close()
	stays.Close()
	open.Close()
	for _, p := range []*Port{s, two, three} {
		p.Wait()
	}
}

// TestDeserted: an address at which somebody listens is not, be it that he answers nothing.
func TestDeserted(t *testing.T) {
	ca, err := identity.NewCA(testCluster)
	must(t, err)
	s := Listen(PortOptions{Listener: listen(t), Identity: issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c1"}), Log: slog.New(slog.DiscardHandler),
		Heard: func(string, io.Reader) {}, Refuse: func(identity.Peer) error { return nil }})
	if gone, err := s.Deserted(t.Context(), s.Addr().String(), time.Millisecond); gone || err != nil {
		t.Errorf("itself: %v, %v", gone, err)
	}
	silent := listen(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if gone, err := s.Deserted(ctx, silent.Addr().String(), time.Millisecond); gone || err == nil {
		t.Errorf("one that is silent: %v, %v", gone, err)
	}
	must(t, silent.Close())
	if gone, err := s.Deserted(t.Context(), silent.Addr().String(), time.Millisecond); !gone || err != nil {
		t.Errorf("nobody: %v, %v", gone, err)
	}
	must(t, s.Close())
	s.Wait()
}
