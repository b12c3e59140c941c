package world

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
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
	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/rpc"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Cluster is the id of the cluster.
const Cluster = "c0ffee"

// model stands in for the replicas of a cluster: one state, applied at once, and a leader that tests choose.
type model struct {
	mu     sync.Mutex
	state  *apply.Applier
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

// Apply applies a command as the first member's; it must succeed.
func (m *model) Apply(t *testing.T, body command.Body) command.Result {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	res := m.commit(command.Command{Header: command.Header{Cluster: Cluster, Actor: "coordinator c1", At: time.Unix(1e9, 0), Level: 1}, Body: body})
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

// FailOnce lets the next proposal fail, after which another member leads.
func (m *model) FailOnce(err error, next string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost, m.next = err, next
}

// Lead makes a member the leader, "" nobody.
func (m *model) Lead(id string) {
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

// Replica is one member's hold of the model.
type Replica struct {
	*model
	id string
}

func (r Replica) Propose(_ context.Context, cmds ...command.Command) ([]command.Result, error) {
	if _, ok := r.Leading(); !ok {
		return nil, fault.New(fault.NotLeader, "propose", "%s does not lead", r.id)
	}
	return r.propose(cmds...)
}

func (r Replica) ProposeQueued(ctx context.Context, cmd command.Command, wait time.Duration) (command.Result, error) {
	r.mu.Lock()
	r.waits = append(r.waits, wait)
	r.mu.Unlock()
	res, err := r.Propose(ctx, cmd)
	if err != nil {
		return command.Result{}, err
	}
	return res[0], res[0].Err
}

func (r Replica) Queued(id node.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queued[id]
}

func (r Replica) ClientSeen(c string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[c] = true
}

func (r Replica) View() *state.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.stale[r.id]; v != nil {
		return v
	}
	return r.view
}

func (r Replica) ReadIndex(context.Context) (uint64, error) {
	if _, ok := r.Leading(); !ok {
		return 0, fault.New(fault.NotLeader, "read index", "%s does not lead", r.id)
	}
	return r.View().Index(), nil
}

func (r Replica) WaitApplied(ctx context.Context, _ uint64) error {
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

func (r Replica) Leading() (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return 1, r.leader == r.id
}

func (r Replica) Leader() (string, string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leader, "", r.leader != ""
}

func (r Replica) Subscribe() (<-chan struct{}, func()) {
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

func (r Replica) Servers() ([]membership.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.voters, nil
}

func (r Replica) AddVoter(_ context.Context, id, address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.voters = append(r.voters, membership.Server{ID: id, RaftAddress: address, Voter: true})
	return nil
}

func (r Replica) RemoveServer(context.Context, string) error { return nil }

func (r Replica) SaveSnapshot(_ context.Context, w io.Writer) error {
	_, err := w.Write(make([]byte, 3<<19))
	return err
}

func (r Replica) RestoreSnapshot(_ context.Context, in io.Reader) error {
	_, err := io.Copy(io.Discard, in)
	return err
}

func (r Replica) Progress(id node.ID) (flow.ID, int, *farrierv1.Progress, bool) {
	return 0, 0, nil, false
}
func (r Replica) FreeWorkers(string) uint32 { return 7 }

// World is a cluster of APIs on loopback over one model.
type World struct {
	*model
	t    *testing.T
	wait time.Duration
	ca   *identity.CA
	Keys *secret.Keyring
	APIs map[string]*rpc.API               // by the names of the members
	URL  map[string]string                 // the same
	Heir string                            // leads when the leader hands on
	IDs  map[identity.Peer]*identity.Store // that As gave out
}

// New starts the members; the first leads. Every agent in agents is live in group default with both drivers.
func New(t *testing.T, members []string, agents ...string) *World {
	t.Helper()
	return NewPatient(t, 300*time.Millisecond, members, agents...)
}

// NewPatient is New, whose requests wait that long for a leader.
func NewPatient(t *testing.T, wait time.Duration, members []string, agents ...string) *World {
	t.Helper()
	ca, err := identity.NewCA(Cluster)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{t: t, wait: wait, ca: ca, Keys: secret.NewKeyring(), APIs: map[string]*rpc.API{}, URL: map[string]string{}, IDs: map[identity.Peer]*identity.Store{},
		model: &model{state: apply.New(), wakes: map[chan struct{}]bool{}, seen: map[string]bool{}, queued: map[node.ID]int{}, stale: map[string]*state.View{}}}
	id, box, err := w.Keys.Seal(ca.KeyDER(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	var issued []command.Issued
	for _, m := range members {
		p := identity.Peer{Cluster: Cluster, Role: identity.RoleCoordinator, Name: m}
		w.IDs[p] = w.Issue(p)
		issued = append(issued, command.Issued{Key: w.IDs[p].Pin(), Role: string(p.Role), Name: m})
	}
	w.Apply(t, command.InitCluster{ClusterID: Cluster, CACert: ca.CertDER(), CAKey: node.Sealed{KeyID: id, Box: box}, Settings: command.DefaultSettings(), Issued: issued})
	for _, m := range members {
		w.start(m)
	}
	w.Lead(members[0])
	for _, a := range agents {
		w.Apply(t, command.OpenSession{Session: "s-" + a, Agent: a, Group: "default", Drivers: []string{"fake-hardware", "redfish"},
			Weight: 1, Journal: "00", Incarnation: 1, Level: 1})
	}
	return w
}

func (w *World) start(name string) {
	store := w.IDs[identity.Peer{Cluster: Cluster, Role: identity.RoleCoordinator, Name: name}]
	rt := w.Transport(store)
	r := w.Replica(name)
	api, err := rpc.New(rpc.Config{ID: name, Reader: r, Proposer: r, Queue: r, Changes: r, Cluster: r, Progress: r,
		Rebalance: func(*state.View, string, int) []command.Move { return nil }, Status: func() (uint64, uint64) { return 1, r.View().Index() },
		HandOn:  func() { w.Lead(w.Heir) },
		Keyring: w.Keys, Transport: rt, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
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
	w.APIs[name], w.URL[name] = api, "https://"+address
	w.Apply(w.t, command.PutMember{Member: command.Member{ID: name, RaftAddress: address, APIAddress: address, RackAddress: address, Version: "test", Level: 1}})
}

// Identity is a certificate that the cluster knows: its key joined by a token.
func (w *World) Identity(p identity.Peer) *identity.Store {
	w.t.Helper()
	store := w.Issue(p)
	id := rand.Text()
	w.Apply(w.t, command.CreateJoinToken{ID: id, Role: string(p.Role), Name: p.Name, Group: p.Group, TTL: time.Minute})
	w.Apply(w.t, command.UseJoinToken{ID: id, Role: string(p.Role), Key: store.Pin()})
	return store
}

// Issue makes a certificate that the cluster does not know.
func (w *World) Issue(p identity.Peer) *identity.Store {
	w.t.Helper()
	store, err := identity.NewStore(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.Certify(w.ca, p, nil, 0); err != nil {
		w.t.Fatal(err)
	}
	return store
}

// Transport is one with that certificate.
func (w *World) Transport(store *identity.Store) *http.Transport {
	rt := &http.Transport{TLSClientConfig: identity.ClientTLS(store, identity.RoleCoordinator), ForceAttemptHTTP2: true}
	w.t.Cleanup(rt.CloseIdleConnections)
	return rt
}

// As is an HTTP client with a certificate of the role, or without one for an empty role.
func (w *World) As(role identity.Role, name string) *http.Client {
	if role == "" {
		rt := &http.Transport{TLSClientConfig: identity.JoinTLS(w.ca.Hash()), ForceAttemptHTTP2: true}
		w.t.Cleanup(rt.CloseIdleConnections)
		return &http.Client{Transport: rt}
	}
	p := identity.Peer{Cluster: Cluster, Role: role, Name: name}
	if role == identity.RoleAgent {
		p.Group = "default"
	}
	if w.IDs[p] == nil {
		w.IDs[p] = w.Identity(p)
	}
	return &http.Client{Transport: w.Transport(w.IDs[p])}
}

// Replica is a member's hold of the model.
func (w *World) Replica(member string) Replica { return Replica{w.model, member} }

// Desk is another desk of a member than that of its API. Its Guard does not run.
func (w *World) Desk(member string) *request.Desk {
	r := w.Replica(member)
	return request.New(request.Config{Member: member, Reader: r, Proposer: r, Queue: r, Leader: w.Finder(member), Clock: clock.System{}})
}

// Finder is another finder of the leader than that of the member's API. Its Run does not run.
func (w *World) Finder(member string) *leader.Finder {
	store := w.IDs[identity.Peer{Cluster: Cluster, Role: identity.RoleCoordinator, Name: member}]
	return leader.New(leader.Config{Self: member, Reader: w.Replica(member), Transport: w.Transport(store), Wait: w.wait})
}

// Voters are the servers of the Raft configuration.
func (m *model) Voters() []membership.Server {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.voters
}

// SetVoters sets the Raft configuration.
func (m *model) SetVoters(s ...membership.Server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.voters = s
}

// Stop has a member apply nothing more.
func (m *model) Stop(member string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behind = member
}

// Lag has a member not hear of anything newer until it waits for it.
func (m *model) Lag(member string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale[member] = m.view
}

// Newest is the state that has applied everything.
func (m *model) Newest() *state.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

// Seen tells whether a client session was kept alive.
func (m *model) Seen(client string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[client]
}

// LastWait is how long the newest queued proposal would have waited.
func (m *model) LastWait() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waits[len(m.waits)-1]
}

// Nodes are the operator alice's calls to a member.
func (w *World) Nodes(member string) fc.NodeServiceClient {
	return fc.NewNodeServiceClient(w.As(identity.RoleOperator, "alice"), w.URL[member])
}

// Clusters are the operator alice's calls to a member.
func (w *World) Clusters(member string) fc.ClusterServiceClient {
	return fc.NewClusterServiceClient(w.As(identity.RoleOperator, "alice"), w.URL[member])
}

// DetailOf reads the typed detail, which every error must have.
func DetailOf(t *testing.T, err error) *farrierv1.ErrorDetail {
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

// WantKind is the detail of an error, which must be of that kind and have the code for it.
func WantKind(t *testing.T, err error, kind fault.Kind) *farrierv1.ErrorDetail {
	t.Helper()
	if err == nil {
		t.Fatalf("it worked, want %s", kind)
	}
	d := DetailOf(t, err)
	if d.GetKind() != kind.String() {
		t.Fatalf("kind %s (%v), want %s", d.GetKind(), err, kind)
	}
	if got := connect.CodeOf(err); got != refusal.Code(kind) {
		t.Errorf("code %v, want %v", got, refusal.Code(kind))
	}
	return d
}

// Web is a node to be created.
func Web(i int) *farrierv1.Node {
	return &farrierv1.Node{Name: fmt.Sprintf("web-%d", i), Driver: "redfish",
		DriverInfo: map[string]string{"redfish_address": "https://10.0.0.1", "redfish_username": "root", "redfish_password": "hunter2"},
		Ports:      []*farrierv1.Port{{Address: fmt.Sprintf("52-54-00-00-%02X-%02x", i/256, i%256)}}}
}

// MustCreate creates a node.
func MustCreate(t *testing.T, c fc.NodeServiceClient, n *farrierv1.Node) *farrierv1.Node {
	t.Helper()
	res, err := c.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: n})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetNode()
}

// RequestID sends the same request id with every call.
func RequestID(client string, seq int) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set(request.HeaderClient, client)
			req.Header().Set(request.HeaderSequence, fmt.Sprint(seq))
			return next(ctx, req)
		}
	}))
}

// CSRs are the requests for a certificate and for a ramdisk CA.
func CSRs(t *testing.T, s *identity.Store) (csr, ramdisk []byte) {
	t.Helper()
	csr, err := s.CSR()
	if err != nil {
		t.Fatal(err)
	}
	ramdisk, err = s.RamdiskCSR()
	if err != nil {
		t.Fatal(err)
	}
	return csr, ramdisk
}
