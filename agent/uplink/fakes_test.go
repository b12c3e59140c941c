package uplink

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/retry"
	"github.com/farrier-project/farrier/pkg/step"
)

const patience = 20 * time.Second // of a test that waits for something that must come

// pki makes identities of one cluster.
type pki struct {
	t  *testing.T
	ca *identity.CA
}

func newPKI(t *testing.T) pki {
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	return pki{t, ca}
}

func (p pki) store(role identity.Role, name string) *identity.Store {
	p.t.Helper()
	s, err := identity.NewStore(p.t.TempDir())
	if err != nil {
		p.t.Fatal(err)
	}
	peer := identity.Peer{Cluster: "test", Role: role, Name: name}
	if role == identity.RoleAgent {
		peer.Group = "rack1"
	}
	if err := s.Certify(p.ca, peer, nil, time.Hour); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// coordinator serves RackService and lets the test be its mind: each stream comes out of streams.
type coordinator struct {
	t       *testing.T
	address string
	streams chan *stream
}

// stream is one agent's stream, from the coordinator's side.
type stream struct {
	t    *testing.T
	conn *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]
	got  chan *farrierv1.AgentMessage
	end  chan struct{} // closed by the test to cut the stream
	once sync.Once

	mu   sync.Mutex // guards sending, and over
	over bool       // the handler is about to return
}

func newCoordinator(p pki, name string) *coordinator {
	p.t.Helper()
	c := &coordinator{t: p.t, streams: make(chan *stream, 16)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	c.address = ln.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(farrierv1connect.NewRackServiceHandler(c))
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(p.store(identity.RoleCoordinator, name), tls.RequireAndVerifyClientCert)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
	p.t.Cleanup(func() { _ = srv.Close(); <-done })
	return c
}

// Connect implements farrierv1connect.RackServiceHandler.
func (c *coordinator) Connect(ctx context.Context, conn *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]) error {
	s := &stream{t: c.t, conn: conn, got: make(chan *farrierv1.AgentMessage, 10_000), end: make(chan struct{})}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			req, err := conn.Receive()
			if err != nil {
				return
			}
			for _, m := range req.GetMessages() {
				s.got <- m
			}
		}
	}()
	c.streams <- s
	select {
	case <-s.end:
	case <-over:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return nil
}

// next is the agent's next stream.
func (c *coordinator) next() *stream {
	c.t.Helper()
	select {
	case s := <-c.streams:
		return s
	case <-time.After(patience):
		c.t.Fatal("no stream came")
		return nil
	}
}

func (s *stream) cut() { s.once.Do(func() { close(s.end) }) }

func (s *stream) send(messages ...*farrierv1.CoordinatorMessage) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		s.t.Error("the stream is over")
	} else if err := s.conn.Send(&farrierv1.ConnectResponse{Messages: messages}); err != nil {
		s.t.Error(err)
	}
}

// await is the agent's next message that pick takes; others are passed over.
func await[T any](s *stream, pick func(*farrierv1.AgentMessage) (T, bool)) T {
	s.t.Helper()
	late := time.After(patience)
	for {
		select {
		case m := <-s.got:
			if v, ok := pick(m); ok {
				return v
			}
		case <-late:
			var none T
			s.t.Fatalf("no %T came", none)
			return none
		}
	}
}

func hello(m *farrierv1.AgentMessage) (*farrierv1.Hello, bool) {
	return m.GetHello(), m.GetHello() != nil
}
func renew(m *farrierv1.AgentMessage) (*farrierv1.Renew, bool) {
	return m.GetRenew(), m.GetRenew() != nil
}
func outcome(m *farrierv1.AgentMessage) (*farrierv1.StepOutcome, bool) {
	return m.GetOutcome(), m.GetOutcome() != nil
}
func edge(m *farrierv1.AgentMessage) (*farrierv1.Edge, bool) { return m.GetEdge(), m.GetEdge() != nil }
func lockRequest(m *farrierv1.AgentMessage) (*farrierv1.LockRequest, bool) {
	return m.GetLockRequest(), m.GetLockRequest() != nil
}
func lockRelease(m *farrierv1.AgentMessage) (*farrierv1.LockRelease, bool) {
	return m.GetLockRelease(), m.GetLockRelease() != nil
}
func teardown(m *farrierv1.AgentMessage) (*farrierv1.TeardownDone, bool) {
	return m.GetTeardownDone(), m.GetTeardownDone() != nil
}

func welcome(session string, resumed bool) *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Welcome{Welcome: &farrierv1.Welcome{
		Session: session, Ttl: durationpb.New(10 * time.Second), RenewEvery: durationpb.New(20 * time.Millisecond), Leader: "c", Resumed: resumed,
	}}}
}
func renewed(seq uint64) *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Renewed{Renewed: &farrierv1.Renewed{Seq: seq}}}
}
func redirect(address string) *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Redirect{Redirect: &farrierv1.Redirect{LeaderAddress: address}}}
}
func assign(node, boot string) *farrierv1.CoordinatorMessage {
	a := &farrierv1.Assign{Node: node, Driver: "fake-hardware", Epoch: 1, Token: 5}
	if boot != "" {
		a.Boot = &farrierv1.BootAttempt{BootId: boot, ExpiresIn: durationpb.New(time.Hour)}
	}
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Assign{Assign: a}}
}
func synced() *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Synced{Synced: &farrierv1.Synced{}}}
}
func order(node string, stepNo uint32, token uint64) *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Order{Order: &farrierv1.Order{
		Ref: &farrierv1.OrderRef{Node: node, Flow: 1, Step: stepNo, Attempt: 1, Token: token}, Interface: "power", Step: "power_on", Class: "set", Executor: "bmc",
	}}}
}

// rack is an agent's task manager and uplink, with steps that the test ends.
type rack struct {
	up      *Uplink
	tasks   *task.Manager
	started chan work.Order
	finish  chan bool
	synced  chan bool // at each Synced: whether n1 was assigned
}

type nothing struct{}

func (nothing) Deliver(*task.Node, work.Order) {}
func (nothing) Cancel(work.Order, string)      {}
func (nothing) Assigned(*task.Node)            {}
func (nothing) Forgotten(string)               {}
func (nothing) Turn(context.Context, string, bmc.Target, func(context.Context, bmc.Client, func(context.Context) error) error) error {
	return nil
}

func (nothing) Glance(context.Context, string, bmc.Target, func(context.Context, bmc.Client) error) error {
	return nil
}

func newRack(p pki, stale time.Duration, addresses ...string) *rack {
	p.t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(p.t.TempDir())
	if err != nil {
		p.t.Fatal(err)
	}
	r := &rack{started: make(chan work.Order, 10), finish: make(chan bool), synced: make(chan bool, 10)}
	r.up = New(Config{
		Agent: "rack1-a", Group: "rack1", Drivers: []string{"fake-hardware"}, Weight: 100, JournalID: j.ID(), Incarnation: j.Incarnation(),
		Addresses: addresses, TLS: identity.ClientTLS(p.store(identity.RoleAgent, "rack1-a"), identity.RoleCoordinator), Clock: clock.System{}, Log: log,
		Backoff: retry.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond}, Stale: stale,
		Synced: func() {
			_, has := r.tasks.Node("n1")
			r.synced <- has
		},
	})
	r.tasks, err = task.New(task.Config{
		Clock: clock.System{}, Journal: j, Log: log, Sink: r.up, Locker: r.up, Ramdisk: nothing{}, Caller: nothing{}, Keeper: nothing{},
		Executors: map[step.Executor]task.Executor{step.BMC: task.ExecutorFunc(func(ctx context.Context, t *task.Exclusive) work.Outcome {
			r.started <- t.Order()
			select {
			case <-r.finish:
				return work.Done(t.Order(), map[string]string{"power_state": "power on"})
			case <-ctx.Done():
				return work.Failed(t.Order(), context.Cause(ctx))
			}
		})},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.up.Run(ctx, r.tasks) })
	wg.Go(func() { _ = r.tasks.Run(ctx) })
	p.t.Cleanup(func() { stop(); wg.Wait(); _ = j.Close() })
	return r
}
