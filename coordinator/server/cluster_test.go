package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// patience bounds every wait of these tests; a healthy cluster needs a small part of it.
const patience = 60 * time.Second

// running is one coordinator of a test, in this process.
type running struct {
	name, dir       string
	api, raft, rack string
	stop            context.CancelFunc
	done            chan error // of Run
}

// site is a cluster in one process, on loopback, with real files and mutual TLS.
type site struct {
	t       *testing.T
	dir     string
	mu      sync.Mutex // guards members
	members map[string]*running
	admin   *identity.Store
	http    *http.Client
	change  []func(*config.Config)
}

// newSite starts the first coordinator. Every coordinator's configuration is changed so.
func newSite(t *testing.T, change ...func(*config.Config)) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), members: map[string]*running{}, change: change}
	s.launch("c1", func(ctx context.Context, cfg config.Config, env Env) error {
		return Init(ctx, cfg, env, InitOptions{OperatorDir: filepath.Join(s.dir, "operator"), Run: true})
	})
	admin, err := identity.OpenStore(filepath.Join(s.dir, "operator"))
	if err != nil {
		t.Fatal(err)
	}
	s.admin = admin
	rt := outward(admin)
	t.Cleanup(rt.CloseIdleConnections)
	s.http = httpClient(rt)
	return s
}

func (s *site) config(name string) config.Config {
	cfg := config.Default()
	cfg.Name, cfg.Data = name, filepath.Join(s.dir, name)
	cfg.Listen = config.Addresses{API: "127.0.0.1:0", Raft: "127.0.0.1:0", Rack: "127.0.0.1:0"}
	cfg.LeaderWait, cfg.StopTimeout, cfg.Profile = time.Second, time.Second, "lan"
	for _, change := range s.change {
		change(&cfg)
	}
	return cfg
}

// launch starts a coordinator and waits until its listeners are bound.
func (s *site) launch(name string, start func(context.Context, config.Config, Env) error) *running {
	s.t.Helper()
	m := &running{name: name, dir: filepath.Join(s.dir, name), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	ready := make(chan struct{})
	env := Env{Version: "test", Log: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("c", name), Clock: clock.System{}, Out: io.Discard, Ready: func(api, raft, rack string) {
		m.api, m.raft, m.rack = api, raft, rack
		close(ready)
	}}
	go func() { m.done <- start(ctx, s.config(name), env) }()
	select {
	case <-ready:
	case err := <-m.done:
		s.t.Fatalf("%s did not start: %v", name, err)
	case <-time.After(patience):
		s.t.Fatalf("%s did not start in time", name)
	}
	s.mu.Lock()
	s.members[name] = m
	s.mu.Unlock()
	s.t.Cleanup(func() { s.end(m) })
	return m
}

// end stops a coordinator and waits for it.
func (s *site) end(m *running) {
	m.stop()
	select {
	case err, ok := <-m.done:
		if ok && err != nil {
			s.t.Errorf("%s ended with %v", m.name, err)
		}
		if ok {
			close(m.done)
		}
	case <-time.After(patience):
		s.t.Errorf("%s did not stop", m.name)
	}
}

func (s *site) join(name string) *running {
	s.t.Helper()
	res, err := s.cluster("c1").CreateJoinToken(s.t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "coordinator", Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.launch(name, func(ctx context.Context, cfg config.Config, env Env) error {
		return Join(ctx, cfg, env, JoinOptions{Token: res.GetToken(), Run: true})
	})
}

func (s *site) client() *http.Client { return s.http }

func (s *site) url(member string) string { return "https://" + s.members[member].api }

func (s *site) cluster(member string) fc.ClusterServiceClient {
	return fc.NewClusterServiceClient(s.client(), s.url(member))
}

func (s *site) nodes(member string) fc.NodeServiceClient {
	return fc.NewNodeServiceClient(s.client(), s.url(member))
}

// until asks again and again, as programs do, until ok or patience is over.
func until(t *testing.T, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func (s *site) waitVoters(n int) {
	s.t.Helper()
	until(s.t, "voters", func() error {
		res, err := s.cluster("c1").GetCluster(s.t.Context(), &farrierv1.GetClusterRequest{})
		if err != nil {
			return err
		}
		voters := 0
		for _, m := range res.GetMembers() {
			if m.GetVoter() && m.GetApiAddress() != "" {
				voters++
			}
		}
		if voters != n {
			return errors.New(res.String())
		}
		return nil
	})
}

// leader is the member that leads, as another one sees it.
func (s *site) leader(asked string) string {
	s.t.Helper()
	var id string
	until(s.t, "leader", func() error {
		res, err := s.cluster(asked).GetCluster(s.t.Context(), &farrierv1.GetClusterRequest{})
		if err == nil && res.GetLeader() == "" {
			err = errors.New("nobody leads")
		}
		id = res.GetLeader()
		return err
	})
	return id
}

// agent is a rack agent that joins, connects and renews, and does no work. It follows redirects and comes back
// after a lost stream.
func (s *site) agent(name, group string) {
	s.t.Helper()
	res, err := s.cluster("c1").CreateJoinToken(s.t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: name, Group: group})
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := identity.ParseJoinToken(res.GetToken())
	if err != nil {
		s.t.Fatal(err)
	}
	store, err := identity.NewStore(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	csr, err := store.CSR()
	if err != nil {
		s.t.Fatal(err)
	}
	ramdisk, err := store.RamdiskCSR()
	if err != nil {
		s.t.Fatal(err)
	}
	rt := &http.Transport{TLSClientConfig: identity.JoinTLS(token.CAHash), ForceAttemptHTTP2: true}
	defer rt.CloseIdleConnections()
	joined, err := fc.NewJoinServiceClient(httpClient(rt), s.url("c1")).Join(s.t.Context(), &farrierv1.JoinRequest{
		Token: res.GetToken(), CsrDer: csr, IntermediateCsrDer: ramdisk, FeatureLevel: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := store.Put(joined.GetChainDer(), joined.GetCaDer()); err != nil {
		s.t.Fatal(err)
	}
	a := &idleAgent{store: store, group: group, racks: joined.GetRackAddresses()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
	until(s.t, "agent "+name, func() error {
		res, err := fc.NewAgentServiceClient(s.client(), s.url("c1")).ListAgents(s.t.Context(), &farrierv1.ListAgentsRequest{})
		if err != nil {
			return err
		}
		for _, x := range res.GetAgents() {
			if x.GetName() == name && x.GetState() == "live" {
				return nil
			}
		}
		return errors.New("not live yet")
	})
}

type idleAgent struct {
	store   *identity.Store
	group   string
	racks   []string
	session string
}

func (a *idleAgent) run(ctx context.Context) {
	rt := outward(a.store)
	defer rt.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		at := a.racks[i%len(a.racks)]
		for at != "" && ctx.Err() == nil {
			at = a.once(ctx, httpClient(rt), at)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// once is one stream; it answers where to go next, if it was told.
func (a *idleAgent) once(ctx context.Context, c *http.Client, at string) (redirect string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := fc.NewRackServiceClient(c, "https://"+at).Connect(ctx)
	if err != nil {
		return ""
	}
	defer stream.CloseRequest()
	say := func(m *farrierv1.AgentMessage) error {
		return stream.Send(&farrierv1.ConnectRequest{Messages: []*farrierv1.AgentMessage{m}})
	}
	hello := &farrierv1.Hello{Agent: a.store.Peer().Name, JournalId: bytes.Repeat([]byte{7}, 16), Incarnation: 1, Group: a.group,
		Drivers: []string{"fake-hardware", "redfish"}, Weight: 1, FeatureLevel: 1, FreeWorkers: 10, Session: a.session}
	if say(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Hello{Hello: hello}}) != nil {
		return ""
	}
	renewed := make(chan struct{})
	defer func() { cancel(); <-renewed }()
	go func() {
		defer close(renewed)
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for seq := uint64(1); ; seq++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if say(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Renew{Renew: &farrierv1.Renew{Seq: seq}}}) != nil {
				return
			}
		}
	}()
	for {
		res, err := stream.Receive()
		if err != nil {
			return ""
		}
		for _, m := range res.GetMessages() {
			if w := m.GetWelcome(); w != nil {
				a.session = w.GetSession()
			}
			if r := m.GetRedirect(); r != nil {
				return r.GetLeaderAddress()
			}
		}
	}
}

func kindOf(t *testing.T, err error) fault.Kind {
	t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) {
		t.Fatalf("not a Connect error: %v", err)
	}
	return fault.KindOf(faultOf(err))
}
