package rpc

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

const testCluster = "c0ffee"

// model stands in for the replicas of a cluster: one state, applied at once, and a leader that tests choose.
type model struct {
	mu     sync.Mutex
	state  *state.State
	view   *state.View
	index  uint64
	leader string // "" when there is none
	wakes  map[chan struct{}]bool
	lost   error  // of the next proposal, when set; then next leads
	next   string // see lost
	seen   map[string]bool
	voters []membership.Server
	behind string // member that applies nothing
	queued map[node.ID]int
	waits  []time.Duration
	stale  map[string]*state.View // what members that have not heard of the newest have, until they wait for it
}

func (m *model) apply(t *testing.T, body command.Body) command.Result {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	res := m.commit(command.Command{Header: command.Header{Cluster: testCluster, Actor: "coordinator c1", At: time.Unix(1e9, 0), Level: 1}, Body: body})
	if res[0].Err != nil {
		t.Fatalf("%T: %v", body, res[0].Err)
	}
	return res[0]
}

func (m *model) propose(cmds ...command.Command) ([]command.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.lost; err != nil {
		m.lost, m.leader = nil, m.next
		return nil, err
	}
	return m.commit(cmds...), nil
}

// commit applies commands; the caller has the mutex.
func (m *model) commit(cmds ...command.Command) []command.Result {
	m.index++
	var out []command.Result
	for _, c := range cmds {
		res := m.state.Apply(m.index, c)
		out = append(out, res)
	}
	m.view = m.state.View()
	for c := range m.wakes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return out
}

// failOnce lets the next proposal fail, after which another member leads.
func (m *model) failOnce(err error, next string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost, m.next = err, next
}

func (m *model) lead(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leader = id
	for c := range m.wakes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// replica is one member's hold of the model.
type replica struct {
	*model
	id string
}

func (r replica) Propose(_ context.Context, cmds ...command.Command) ([]command.Result, error) {
	if _, ok := r.Leading(); !ok {
		return nil, fault.New(fault.NotLeader, "propose", "%s does not lead", r.id)
	}
	return r.propose(cmds...)
}

func (r replica) ProposeQueued(ctx context.Context, cmd command.Command, wait time.Duration) (command.Result, error) {
	r.mu.Lock()
	r.waits = append(r.waits, wait)
	r.mu.Unlock()
	res, err := r.Propose(ctx, cmd)
	if err != nil {
		return command.Result{}, err
	}
	return res[0], res[0].Err
}

func (r replica) Queued(id node.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queued[id]
}

func (r replica) ClientSeen(c string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[c] = true
}

func (r replica) View() *state.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.stale[r.id]; v != nil {
		return v
	}
	return r.view
}

func (r replica) ReadIndex(context.Context) (uint64, error) {
	if _, ok := r.Leading(); !ok {
		return 0, fault.New(fault.NotLeader, "read index", "%s does not lead", r.id)
	}
	return r.View().Index(), nil
}

func (r replica) WaitApplied(ctx context.Context, _ uint64) error {
	r.mu.Lock()
	behind := r.behind == r.id
	delete(r.stale, r.id)
	r.mu.Unlock()
	if !behind {
		return nil
	}
	<-ctx.Done()
	return fault.New(fault.Timeout, "wait for the log", "%w", ctx.Err())
}

func (r replica) Leading() (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return 1, r.leader == r.id
}

func (r replica) Leader() (string, string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leader, "", r.leader != ""
}

func (r replica) Subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakes[c] = true
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.wakes, c)
	}
}

func (r replica) Servers() ([]membership.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.voters, nil
}

func (r replica) AddVoter(_ context.Context, id, address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.voters = append(r.voters, membership.Server{ID: id, RaftAddress: address, Voter: true})
	return nil
}

func (r replica) RemoveServer(context.Context, string) error { return nil }

func (r replica) SaveSnapshot(_ context.Context, w io.Writer) error {
	_, err := w.Write(make([]byte, 3<<19))
	return err
}

func (r replica) RestoreSnapshot(_ context.Context, in io.Reader) error {
	_, err := io.Copy(io.Discard, in)
	return err
}

func (r replica) Progress(id node.ID) (flow.ID, int, *farrierv1.Progress, bool) {
	return 0, 0, nil, false
}
func (r replica) FreeWorkers(string) uint32 { return 7 }

// world is a cluster of APIs on loopback over one model.
type world struct {
	*model
	t    *testing.T
	wait time.Duration
	ca   *identity.CA
	keys *secret.Keyring
	apis map[string]*API
	url  map[string]string
	heir string                            // leads when the leader hands on
	ids  map[identity.Peer]*identity.Store // that as gave out
}

// newWorld starts the members; the first leads. Every agent in agents is live in group default with both drivers.
func newWorld(t *testing.T, members []string, agents ...string) *world {
	t.Helper()
	return newPatientWorld(t, 300*time.Millisecond, members, agents...)
}

// newPatientWorld is newWorld, whose requests wait that long for a leader.
func newPatientWorld(t *testing.T, wait time.Duration, members []string, agents ...string) *world {
	t.Helper()
	ca, err := identity.NewCA(testCluster)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, wait: wait, ca: ca, keys: secret.NewKeyring(), apis: map[string]*API{}, url: map[string]string{}, ids: map[identity.Peer]*identity.Store{},
		model: &model{state: state.New(), wakes: map[chan struct{}]bool{}, seen: map[string]bool{}, queued: map[node.ID]int{}, stale: map[string]*state.View{}}}
	id, box, err := w.keys.Seal(ca.KeyDER(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	var issued []command.Issued
	for _, m := range members {
		p := identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: m}
		w.ids[p] = w.issue(p)
		issued = append(issued, command.Issued{Key: w.ids[p].Pin(), Role: string(p.Role), Name: m})
	}
	w.apply(t, command.InitCluster{ClusterID: testCluster, CACert: ca.CertDER(), CAKey: node.Sealed{KeyID: id, Box: box}, Settings: command.DefaultSettings(), Issued: issued})
	for _, m := range members {
		w.start(m)
	}
	w.lead(members[0])
	for _, a := range agents {
		w.apply(t, command.OpenSession{Session: "s-" + a, Agent: a, Group: "default", Drivers: []string{"fake-hardware", "redfish"},
			Weight: 1, Journal: "00", Incarnation: 1, Level: 1})
	}
	return w
}

func (w *world) start(name string) {
	store := w.ids[identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: name}]
	rt := w.transport(store)
	r := replica{w.model, name}
	api, err := New(Config{ID: name, Reader: r, Proposer: r, Queue: r, Changes: r, Cluster: r, Progress: r,
		Rebalance: func(*state.View, string, int) []command.Move { return nil }, Status: func() (uint64, uint64) { return 1, r.View().Index() },
		HandOn:  func() { w.lead(w.heir) },
		Keyring: w.keys, Transport: rt, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		LeaderWait: w.wait, MaxWatchers: 2, SyncedEvery: 100 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	srv := &http.Server{Handler: api.Handler(), TLSConfig: identity.ServerTLS(store, tls.VerifyClientCertIfGiven), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- api.FollowLeader(ctx) }()
	go func() { done <- api.Guard(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		<-done
		<-done
		_ = srv.Close()
		<-served
	})
	address := ln.Addr().String()
	w.apis[name], w.url[name] = api, "https://"+address
	w.apply(w.t, command.PutMember{Member: command.Member{ID: name, RaftAddress: address, APIAddress: address, RackAddress: address, Version: "test", Level: 1}})
}

// identity is a certificate that the cluster knows: its key joined by a token.
func (w *world) identity(p identity.Peer) *identity.Store {
	w.t.Helper()
	store := w.issue(p)
	id := rand.Text()
	w.apply(w.t, command.CreateJoinToken{ID: id, Role: string(p.Role), Name: p.Name, Group: p.Group, TTL: time.Minute})
	w.apply(w.t, command.UseJoinToken{ID: id, Role: string(p.Role), Key: store.Pin()})
	return store
}

// issue makes a certificate that the cluster does not know.
func (w *world) issue(p identity.Peer) *identity.Store {
	w.t.Helper()
	store, err := identity.NewStore(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	csr, err := store.CSR()
	if err != nil {
		w.t.Fatal(err)
	}
	chain, err := w.ca.Issue(csr, p, nil, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.Put(chain, w.ca.CertDER()); err != nil {
		w.t.Fatal(err)
	}
	return store
}

func (w *world) transport(store *identity.Store) *http.Transport {
	rt := &http.Transport{TLSClientConfig: identity.ClientTLS(store, identity.RoleCoordinator), ForceAttemptHTTP2: true}
	w.t.Cleanup(rt.CloseIdleConnections)
	return rt
}

// as is an HTTP client with a certificate of the role, or without one for an empty role.
func (w *world) as(role identity.Role, name string) *http.Client {
	if role == "" {
		rt := &http.Transport{TLSClientConfig: identity.JoinTLS(w.ca.Hash()), ForceAttemptHTTP2: true}
		w.t.Cleanup(rt.CloseIdleConnections)
		return &http.Client{Transport: rt}
	}
	p := identity.Peer{Cluster: testCluster, Role: role, Name: name}
	if role == identity.RoleAgent {
		p.Group = "default"
	}
	if w.ids[p] == nil {
		w.ids[p] = w.identity(p)
	}
	return &http.Client{Transport: w.transport(w.ids[p])}
}

func (w *world) nodes(member string) fc.NodeServiceClient {
	return fc.NewNodeServiceClient(w.as(identity.RoleOperator, "alice"), w.url[member])
}

func (w *world) clusterClient(member string) fc.ClusterServiceClient {
	return fc.NewClusterServiceClient(w.as(identity.RoleOperator, "alice"), w.url[member])
}

// detailOf reads the typed detail, which every error must have.
func detailOf(t *testing.T, err error) *farrierv1.ErrorDetail {
	t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) {
		t.Fatalf("not a Connect error: %v", err)
	}
	for _, d := range ce.Details() {
		if v, err := d.Value(); err == nil {
			if x, ok := v.(*farrierv1.ErrorDetail); ok {
				return x
			}
		}
	}
	t.Fatalf("no detail in %v", err)
	return nil
}

func wantKind(t *testing.T, err error, kind fault.Kind) *farrierv1.ErrorDetail {
	t.Helper()
	if err == nil {
		t.Fatalf("it worked, want %s", kind)
	}
	d := detailOf(t, err)
	if d.GetKind() != kind.String() {
		t.Fatalf("kind %s (%v), want %s", d.GetKind(), err, kind)
	}
	if got := connect.CodeOf(err); got != refusal.Code(kind) {
		t.Errorf("code %v, want %v", got, refusal.Code(kind))
	}
	return d
}
