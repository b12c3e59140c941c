package replica

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// The protocols of the Raft port.
const (
	protoRaft = "farrier-raft/1"
	protoSide = "farrier-hash/1"
)

func issue(t testing.TB, ca *identity.CA, p identity.Peer) *identity.Store {
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

// startReal starts a member on disk and TLS.
func startReal(t testing.TB, cfg Config) (*Replica, func() error) {
	t.Helper()
	r, err := Open(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() error {
		cancel()
		return <-done
	}
}

// waitLeading waits for the member to lead, by its own wake-ups.
func waitLeading(t testing.TB, r *Replica) {
	t.Helper()
	s := r.Subscribe()
	defer s.Close()
	for {
		if _, ok := r.Leading(); ok {
			return
		}
		select {
		case <-s.C:
		case <-t.Context().Done():
			t.Fatal("the member does not lead")
		}
	}
}

// TestMembersOverTLS runs two members on disk and loopback TLS through join, writes, an orderly stop and a damaged file.
func TestMembersOverTLS(t *testing.T) {
	ca, err := identity.NewCA(testCluster)
	must(t, err)
	cfg := func(name string) Config {
		l := listen(t)
		return Config{
			Place: home.Place{Cluster: testCluster, Member: name, Dir: filepath.Join(t.TempDir(), name)}, Listener: l, Advertise: l.Addr().String(),
			Identity: issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: name}), Election: LANElection,
		}
	}
	one, two := cfg("c1"), cfg("c2")
	must(t, bootstrap.Cluster(one.Place, one.Advertise, initCommand()))
	must(t, bootstrap.Join(two.Place))
	r1, stop1 := startReal(t, one)
	waitLeading(t, r1)
	r2, stop2 := startReal(t, two)
	must(t, r1.AddVoter(t.Context(), "c2", two.Advertise))
	for i := range 20 {
		res, err := r1.Propose(t.Context(), command.Command{Header: header("operator alice"), Body: putMember(i)})
		if err != nil || res[0].Err != nil {
			t.Fatal(err, res)
		}
	}
	index, err := r1.ReadIndex(t.Context())
	must(t, err)
	must(t, r2.WaitApplied(t.Context(), index))
	if r1.View().Hash() != r2.View().Hash() {
		t.Error("the members differ")
	}
	if s := r1.Stats(); s.Role != "leader" || s.Leader != "c1" || len(s.Servers) != 2 {
		t.Errorf("stats: %+v", s)
	}

	must(t, stop1()) // hands the leadership on
	waitQuorumGone(t, r2)
	must(t, stop2())
	path := filepath.Join(two.Dir, "raft.db")
	raw, err := os.ReadFile(path)
	must(t, err)
	at := bytes.Index(raw, []byte("operator alice"))
	if at < 0 {
		t.Fatal("the log does not hold what was proposed")
	}
	raw = bytes.ReplaceAll(raw, []byte("operator alice"), []byte("operator mallo"))
	must(t, os.WriteFile(path, raw, 0o600))
	two.Listener = listen(t)
	_, err = Open(two)
	checkAdvice(t, err, path)
	if !strings.Contains(err.Error(), "entry ") {
		t.Errorf("no index in %q", err)
	}
	one.Listener = listen(t) // its own files are whole: it opens
	_, stop1 = startReal(t, one)
	must(t, stop1())
}

// waitQuorumGone: with its only peer stopped, the member must not answer reads, whoever leads.
func waitQuorumGone(t *testing.T, r *Replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := r.ReadIndex(ctx); !fault.Is(err, fault.NoQuorum) && !fault.Is(err, fault.NotLeader) && !fault.Is(err, fault.Timeout) {
		t.Errorf("a read without a quorum: %v", err)
	}
}

// TestRevokedCoordinatorGetsNoByteToRaft: neither on a connection that is open when its certificate is taken back, nor on a new
// one. A key that the member has not heard of is let in.
func TestRevokedCoordinatorGetsNoByteToRaft(t *testing.T) {
	ca, err := identity.NewCA(testCluster)
	must(t, err)
	own := issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c1"})
	gone := issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c2"})
	cfg := Config{Place: home.Place{Cluster: testCluster, Member: "c1", Dir: filepath.Join(t.TempDir(), "c1")}, Listener: listen(t), Identity: own}
	cfg.Advertise = cfg.Listener.Addr().String()
	first := initCommand()
	body := first.Body.(command.InitCluster)
	body.Issued = []command.Issued{{Key: gone.Pin(), Role: "coordinator", Name: "c2"}}
	first.Body = body
	must(t, bootstrap.Cluster(cfg.Place, cfg.Advertise, first))
	r, stop := startReal(t, cfg)
	defer func() { must(t, stop()) }()
	waitLeading(t, r)
	dial := func(id *identity.Store, proto string) *tls.Conn {
		c := identity.ClientTLS(id, identity.RoleCoordinator)
		c.NextProtos = []string{proto}
		conn, err := tls.Dial("tcp", cfg.Advertise, c)
		must(t, err)
		return conn
	}
	// One byte of raft's own is answered by nothing, so that a read ends when the connection does.
	open := dial(gone, protoRaft)
	defer open.Close()
	res, err := r.Propose(t.Context(), command.Command{Header: header("operator alice"), Body: command.RemoveMember{ID: "c2"}})
	must(t, err)
	must(t, res[0].Err)
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("raft answers on the open connection")
	}
	for _, proto := range []string{protoRaft, protoSide} {
		c := dial(gone, proto)
		_, err := c.Write([]byte{3})
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("a new connection was let in (%s)", proto)
		}
		c.Close()
	}
	unheard := dial(issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c3"}), protoRaft)
	must(t, unheard.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	if _, err := unheard.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a coordinator that this member has not heard of: %v", err)
	}
	unheard.Close()
}

// BenchmarkPropose is durable commits on three members on disk and TLS, by 256 callers.
func BenchmarkPropose(b *testing.B) {
	ca, err := identity.NewCA(testCluster)
	if err != nil {
		b.Fatal(err)
	}
	var members []*Replica
	for _, name := range []string{"c1", "c2", "c3"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		cfg := Config{
			Place: home.Place{Cluster: testCluster, Member: name, Dir: filepath.Join(b.TempDir(), name)}, Listener: l, Advertise: l.Addr().String(),
			Identity: issue(b, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: name}),
		}
		if name == "c1" {
			err = bootstrap.Cluster(cfg.Place, cfg.Advertise, initCommand())
		} else {
			err = bootstrap.Join(cfg.Place)
		}
		if err != nil {
			b.Fatal(err)
		}
		r, stop := startReal(b, cfg)
		defer stop()
		members = append(members, r)
		if name == "c1" {
			waitLeading(b, r)
		} else if err := members[0].AddVoter(b.Context(), name, cfg.Advertise); err != nil {
			b.Fatal(err)
		}
	}
	c := command.Command{Header: header("agent rack1-a"), Body: putMember(1)}
	before := members[0].Stats().Last
	b.SetParallelism(256 / runtime.GOMAXPROCS(0))
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if res, err := members[0].Propose(context.Background(), c); err != nil || res[0].Err != nil {
				b.Error(err, res)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(b.N)/float64(members[0].Stats().Last-before), "commits/entry")
}
