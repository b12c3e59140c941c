package dispatch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

const cluster = "test"

// patience bounds every wait of these tests.
const patience = 10 * time.Second

// model is a replica of one member: real state, no log.
type model struct {
	mu    sync.Mutex // guards the fields below
	st    *apply.Applier
	index uint64
	term  uint64
	gate  chan struct{} // not nil: proposals of outcomes wait for it
	most  int           // commands in one proposal; 0: any number
	busy  int           // proposals to refuse
	subs  []chan struct{}

	view atomic.Pointer[state.View]
}

func newModel() *model {
	m := &model{st: apply.New(), term: 1}
	m.view.Store(m.st.View())
	return m
}

func (m *model) Propose(ctx context.Context, cmds ...command.Command) ([]command.Result, error) {
	m.mu.Lock()
	gate, term, most, busy := m.gate, m.term, m.most, m.busy
	m.busy = max(busy-1, 0)
	m.mu.Unlock()
	switch {
	case term == 0:
		return nil, fault.New(fault.NotLeader, "propose", "this member follows")
	case busy > 0:
		return nil, fault.New(fault.Busy, "propose", "others wait")
	case most > 0 && len(cmds) > most:
		return nil, fault.New(fault.TooLarge, "propose", "%d commands", len(cmds))
	}
	if _, outcome := cmds[0].Body.(command.Outcome); outcome && gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	m.index++
	results := make([]command.Result, len(cmds))
	for i, c := range cmds {
		results[i] = m.st.Apply(m.index, c)
	}
	m.view.Store(m.st.View())
	m.mu.Unlock()
	m.notify()
	return results, nil
}

// certify puts a key in the roster, whoever leads.
func (m *model) certify(x command.Issued) {
	m.mu.Lock()
	m.index++
	m.st.Apply(m.index, command.Command{Header: command.Header{Cluster: cluster, Level: 1}, Body: command.RecoverRoster{Issued: []command.Issued{x}}})
	m.view.Store(m.st.View())
	m.mu.Unlock()
	m.notify()
}

func (m *model) notify() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.subs {
		signal(c)
	}
}

func (m *model) View() *state.View { return m.view.Load() }

func (m *model) Leading() (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.term, m.term != 0
}

func (m *model) Leader() (id, address string, known bool) {
	if _, leading := m.Leading(); leading {
		return "c1", "127.0.0.1:1", true
	}
	return "c2", "127.0.0.1:2", true
}

func (m *model) Subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subs = append(m.subs, c)
	return c, func() {}
}

// lead sets the term; 0 follows.
func (m *model) lead(term uint64) {
	m.mu.Lock()
	m.term = term
	m.mu.Unlock()
	m.notify()
}

func (m *model) setGate(gate chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = gate
}

// handClock is moved by the test.
type handClock struct{ at atomic.Int64 }

func (c *handClock) Now() time.Time          { return time.Unix(1_700_000_000, c.at.Load()) }
func (c *handClock) Boottime() time.Duration { return time.Duration(c.at.Load()) }

// rig is a Dispatch over a model, behind mutual TLS on loopback. Ticks are the test's.
type rig struct {
	t     testing.TB
	ctx   context.Context
	model *model
	clock *handClock
	d     *Dispatch
	ca    *identity.CA
	url   string
	keys  *secret.Keyring
	seq   atomic.Uint64
}

func newRig(t testing.TB) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ca, err := identity.NewCA(cluster)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ctx: ctx, model: newModel(), clock: &handClock{}, ca: ca, keys: secret.NewKeyring()}
	r.apply(command.InitCluster{ClusterID: cluster, CACert: ca.CertDER(), Settings: command.DefaultSettings()})
	for _, id := range []string{"c1", "c2"} {
		r.apply(command.PutMember{Member: command.Member{ID: id, RaftAddress: id + ":7601", APIAddress: id + ":7600", RackAddress: id + ":7602", Version: "1", Level: 1}})
	}
	r.d = New(Config{
		ID: "c1", Replica: r.model, Changes: r.model, Keyring: r.keys, Clock: r.clock, TickEvery: time.Hour,
		Log: slog.New(slog.DiscardHandler),
	})
	over := make(chan error, 1)
	go func() { over <- r.d.Run(ctx) }()
	path, handler := r.d.Handler()
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		TLSConfig: identity.ServerTLS(r.store(identity.Peer{Cluster: cluster, Role: identity.RoleCoordinator, Name: "c1"}), tls.RequireAndVerifyClientCert),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	r.url = "https://" + listener.Addr().String()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("Run: %v", err)
		}
		server.Close()
		<-served
	})
	r.tick(0)
	return r
}

func (r *rig) store(p identity.Peer) *identity.Store {
	r.t.Helper()
	s, err := identity.NewStore(filepath.Join(r.t.TempDir(), "id"))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.Certify(r.ca, p, nil, 0); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// lockCommand takes the lock for an operator's client session.
func (r *rig) lockCommand(id node.ID, task string) command.Command {
	c := r.command(command.AcquireLock{Node: id, Session: "client-of-alice", Holder: "operator alice", Task: task, Purpose: "test"})
	c.Header.Request = command.RequestID{Client: "client-of-alice", Seq: r.seq.Add(1)}
	return c
}

func (r *rig) header() command.Header {
	h := command.Header{Cluster: cluster, Level: 1, At: r.clock.Now(), Actor: "operator alice"}
	h.Seed[0] = byte(r.model.View().Index())
	h.Seed[1] = byte(r.model.View().Index() >> 8)
	return h
}

func (r *rig) command(b command.Body) command.Command {
	return command.Command{Header: r.header(), Body: b}
}

// apply proposes as an operator would, past the queue.
func (r *rig) apply(b command.Body) command.Result {
	r.t.Helper()
	res, err := r.model.Propose(r.ctx, r.command(b))
	if err == nil {
		err = res[0].Err
	}
	if err != nil {
		r.t.Fatalf("%T: %v", b, err)
	}
	return res[0]
}

// tick moves time.
func (r *rig) tick(d time.Duration) {
	r.clock.at.Add(int64(d))
	r.d.ticker.Tick(r.ctx)
}

// storeOf is the identity of an agent.
func (r *rig) storeOf(name, group string) *identity.Store {
	s := r.store(identity.Peer{Cluster: cluster, Role: identity.RoleAgent, Name: name, Group: group})
	r.model.certify(command.Issued{Key: s.Pin(), Role: "agent", Name: name, Group: group})
	return s
}

// until waits for a condition that no channel tells of; each change of the replica or 1 ms looks again.
func (r *rig) until(cond func() bool) {
	r.t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-look.C:
		case <-deadline:
			r.t.Fatal("a condition does not come true")
		}
	}
}

func nodeID(i int) node.ID { return node.ID(fmt.Sprintf("00000000-0000-4000-8000-%012x", i)) }

// node enrols one machine.
func (r *rig) node(i int) node.ID {
	r.t.Helper()
	id := nodeID(i)
	box := node.Sealed{}
	var err error
	if box.KeyID, box.Box, err = r.keys.Seal([]byte("swordfish"), "node/"+string(id)+"/redfish_password"); err != nil {
		r.t.Fatal(err)
	}
	r.apply(command.CreateNode{
		Node: node.Pack(&node.Node{ID: id, Name: fmt.Sprintf("web-%d", i), Driver: "redfish", Group: "rack1",
			DriverInfo: map[string]string{"redfish_address": "https://bmc", "redfish_username": "admin"},
			Secrets:    map[string]node.Sealed{"redfish_password": box}}),
		Ports: []node.Port{{ID: fmt.Sprintf("11111111-0000-4000-8000-%012x", i), Node: id,
			Address: fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255), PXEEnabled: true}},
	})
	return id
}

// get is the node now.
func (r *rig) get(id node.ID) *node.Node {
	r.t.Helper()
	n, ok := r.model.View().Node(id)
	if !ok {
		r.t.Fatalf("node %s is gone", id)
	}
	return n
}

// agent is a rack agent as far as the stream goes.
type agent struct {
	r       *rig
	t       testing.TB
	hello   *farrierv1.Hello
	store   *identity.Store
	stream  *connect.BidiStreamForClientSimple[farrierv1.ConnectRequest, farrierv1.ConnectResponse]
	inbox   chan *farrierv1.CoordinatorMessage
	over    chan error
	cut     func()
	session string
	calls   uint64
	kept    []*farrierv1.CoordinatorMessage // passed over by a barrier
}

func (r *rig) agent(name string) *agent {
	journal := make([]byte, 16)
	copy(journal, name)
	return &agent{r: r, t: r.t,
		store: r.storeOf(name, "rack1"),
		hello: &farrierv1.Hello{Agent: name, Group: "rack1", JournalId: journal, Incarnation: 1, Drivers: []string{"redfish"},
			Weight: 1, Version: "1", FeatureLevel: 1, RamdiskUrl: "https://" + name + ":8443", HttpUrl: "http://" + name + ":8080",
			RamdiskPin: "00", FreeWorkers: 100}}
}

// dial opens the stream and sends hello, without waiting for an answer.
func (a *agent) dial() *agent {
	a.t.Helper()
	ctx, cancel := context.WithCancel(a.r.ctx)
	transport := &http.Transport{TLSClientConfig: identity.ClientTLS(a.store, identity.RoleCoordinator), ForceAttemptHTTP2: true}
	client := farrierv1connect.NewRackServiceClient(&http.Client{Transport: transport}, a.r.url)
	stream, err := client.Connect(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	a.cut = func() {
		cancel()
		stream.CloseRequest() // HTTP/2 looks at ctx only between two reads of the request's body
	}
	a.kept, a.stream, a.inbox, a.over = nil, stream, make(chan *farrierv1.CoordinatorMessage, 1<<16), make(chan error, 1)
	hello := &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Hello{Hello: a.hello}}
	if err := stream.Send(&farrierv1.ConnectRequest{Messages: []*farrierv1.AgentMessage{hello}}); err != nil && !errors.Is(err, io.EOF) {
		a.t.Fatal(err) // io.EOF: the stream was refused, as Receive tells
	}
	inbox, over := a.inbox, a.over
	go func() {
		defer transport.CloseIdleConnections()
		defer cancel()
		for {
			res, err := stream.Receive()
			if err != nil {
				over <- err
				close(inbox)
				return
			}
			for _, m := range res.Messages {
				inbox <- m
			}
		}
	}()
	return a
}

// connect dials and waits for the welcome.
func (a *agent) connect() *agent {
	a.t.Helper()
	w := a.dial().await("welcome", func(m *farrierv1.CoordinatorMessage) bool { return m.GetWelcome() != nil }).GetWelcome()
	a.session, a.hello.Session = w.Session, w.Session
	return a
}

func (a *agent) send(messages ...*farrierv1.AgentMessage) {
	a.t.Helper()
	if err := a.stream.Send(&farrierv1.ConnectRequest{Messages: messages}); err != nil {
		a.t.Fatalf("agent %s: send: %v", a.hello.Agent, err)
	}
}

// await reads until a message is what the test waits for; others are passed over.
func (a *agent) await(what string, is func(*farrierv1.CoordinatorMessage) bool) *farrierv1.CoordinatorMessage {
	a.t.Helper()
	for len(a.kept) > 0 {
		m := a.kept[0]
		if a.kept = a.kept[1:]; is(m) {
			return m
		}
	}
	deadline := time.After(patience)
	for {
		select {
		case m, ok := <-a.inbox:
			if !ok {
				a.t.Fatalf("agent %s: the stream ended before %s: %v", a.hello.Agent, what, <-a.over)
			}
			if is(m) {
				return m
			}
		case <-deadline:
			a.t.Fatalf("agent %s: no %s", a.hello.Agent, what)
		}
	}
}

func (a *agent) order(id node.ID) *farrierv1.Order {
	a.t.Helper()
	return a.await("order for "+string(id), func(m *farrierv1.CoordinatorMessage) bool {
		return m.GetOrder().GetRef().GetNode() == string(id)
	}).GetOrder()
}

func (a *agent) assigned(id node.ID) *farrierv1.Assign {
	a.t.Helper()
	return a.await("assignment of "+string(id), func(m *farrierv1.CoordinatorMessage) bool {
		return m.GetAssign().GetNode() == string(id)
	}).GetAssign()
}

func (a *agent) reply(call uint64) *farrierv1.LockReply {
	a.t.Helper()
	return a.await(fmt.Sprintf("reply to call %d", call), func(m *farrierv1.CoordinatorMessage) bool {
		return m.GetLockReply().GetCall() == call
	}).GetLockReply()
}

// barrier returns what arrived until everything sent before it was dealt with, in order. It is there for await.
func (a *agent) barrier() (passed []*farrierv1.CoordinatorMessage) {
	a.t.Helper()
	defer func() { a.kept = passed }()
	a.calls++
	call := 1<<40 + a.calls
	a.send(release(call, "no such node", 1))
	a.await("barrier", func(m *farrierv1.CoordinatorMessage) bool {
		if m.GetLockReply().GetCall() == call {
			return true
		}
		passed = append(passed, m)
		return false
	})
	return passed
}

// renew renews and ticks, so that the session has its full life again.
func (a *agent) renew(seq uint64) *farrierv1.AgentMessage {
	return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Renew{Renew: &farrierv1.Renew{Seq: seq}}}
}

func lockMessage(call uint64, id node.ID, task string, wait *farrierv1.LockWait) *farrierv1.AgentMessage {
	return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRequest{LockRequest: &farrierv1.LockRequest{
		Call: call, Node: string(id), Task: task, Purpose: "test", Wait: wait}}}
}

func release(call uint64, id node.ID, token uint64) *farrierv1.AgentMessage {
	return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRelease{LockRelease: &farrierv1.LockRelease{
		Call: call, Node: string(id), Token: token}}}
}

func outcomeOf(ref *farrierv1.OrderRef, facts map[string]string) *farrierv1.AgentMessage {
	return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Outcome{Outcome: &farrierv1.StepOutcome{Ref: ref, Ok: true, Facts: facts}}}
}

// ended waits for the end of the stream.
func (a *agent) ended() error {
	a.t.Helper()
	select {
	case err := <-a.over:
		return err
	case <-time.After(patience):
		a.t.Fatalf("agent %s: the stream goes on", a.hello.Agent)
		return errors.New("unreachable")
	}
}
