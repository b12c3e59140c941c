package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// TestABusyClientOpensMoreSessions: the cluster forgets all but the newest answers of a session, and a slow call among
// more than those could not be repeated.
func TestABusyClientOpensMoreSessions(t *testing.T) {
	type call struct {
		l   *lane
		seq uint64
	}
	var ls lanes
	var open []call
	count := map[string]int{}
	for range 3*laneSpan + 1 {
		l, seq := ls.enter()
		open = append(open, call{l, seq})
		count[l.id]++
	}
	if len(count) != 4 {
		t.Errorf("%d sessions for %d calls", len(count), len(open))
	}
	for id, n := range count {
		if n > laneSpan {
			t.Errorf("session %s has %d calls", id, n)
		}
	}
	for _, c := range open {
		ls.leave(c.l, c.seq)
	}
	if l, seq := ls.enter(); l != open[0].l || seq != laneSpan+1 || len(ls.all) != 4 {
		t.Error("an idle session was not used again")
	}
}

// TestASlowCallWasForgottenAmongQuickOnes: a call waits in a queue while the same client makes others. The cluster's
// floor rises with the answers that it drops, and a call at or below it is refused though it was never executed.
func TestASlowCallWasForgottenAmongQuickOnes(t *testing.T) {
	for _, c := range []struct {
		name               string
		before, slow, then int
		sessions           int
	}{
		{"one slow, 200 quick", 0, 1, 200, 2},
		{"in the middle of a session", 40, 1, 200, 2},
		{"several slow", 0, 5, 500, 2},
		{"none slow", 0, 0, 500, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ls lanes
			answered := map[string][]uint64{}
			quick := func(n int) {
				for range n {
					l, seq := ls.enter()
					answered[l.id] = append(answered[l.id], seq)
					ls.leave(l, seq)
				}
			}
			quick(c.before)
			slow := map[uint64]*lane{}
			for range c.slow {
				l, seq := ls.enter()
				slow[seq] = l
			}
			quick(c.then)
			for seq, l := range slow {
				if kept := answered[l.id]; len(kept) > laneSpan && kept[len(kept)-laneSpan-1] >= seq {
					t.Errorf("the cluster's floor is %d, call %d is under way", kept[len(kept)-laneSpan-1], seq)
				}
				ls.leave(l, seq)
			}
			if len(ls.all) != c.sessions {
				t.Errorf("%d sessions instead of %d", len(ls.all), c.sessions)
			}
			for _, l := range ls.all {
				if len(l.open) != 0 {
					t.Errorf("session %s has calls under way: %v", l.id, l.open)
				}
			}
		})
	}
}

// TestASilentCoordinatorHeldEachCommandForSeconds: a machine that lost its power refuses no connection.
func TestASilentCoordinatorHeldEachCommandForSeconds(t *testing.T) {
	ca := newCA(t)
	store := func(role identity.Role) *identity.Store { return newStore(t, ca, role, time.Hour) }
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	silent, live := listen(), listen() // the kernel takes silent's connections, and nobody ever answers
	mux := http.NewServeMux()
	mux.Handle(farrierv1connect.NewClusterServiceHandler(farrierv1connect.UnimplementedClusterServiceHandler{}))
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(store(identity.RoleCoordinator), tls.RequireAndVerifyClientCert)}
	go func() { _ = srv.ServeTLS(live, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	c, err := New(Config{Identity: store(identity.RoleOperator), Addresses: []string{silent.Addr().String(), live.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if w := c.endpoints.wait(); w != hastyDial {
		t.Errorf("the first is waited for %v", w)
	}
	if _, err := c.Cluster.GetCluster(t.Context(), &farrierv1.GetClusterRequest{}); Fault(err).Kind != fault.Unsupported {
		t.Errorf("the second did not answer: %v", err)
	}
	if at := c.endpoints.pick(); at != live.Addr().String() {
		t.Errorf("%s is in use", at)
	}
	c.endpoints.refused = 1 // of two
	if w := c.endpoints.wait(); w != patientDial {
		t.Errorf("the last is waited for %v", w)
	}
}

func newCA(t *testing.T) *identity.CA {
	t.Helper()
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newStore(t *testing.T, ca *identity.CA, role identity.Role, ttl time.Duration) *identity.Store {
	t.Helper()
	s, err := identity.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	issue(t, ca, s, role, ttl)
	return s
}

func issue(t *testing.T, ca *identity.CA, s *identity.Store, role identity.Role, ttl time.Duration) {
	t.Helper()
	if err := s.Certify(ca, identity.Peer{Cluster: "test", Role: role, Name: "x"}, nil, ttl); err != nil {
		t.Fatal(err)
	}
}

// TestAnEndedCertificateWasATLSError: and one that another process renewed meanwhile is taken over.
func TestAnEndedCertificateWasATLSError(t *testing.T) {
	ca := newCA(t)
	store := newStore(t, ca, identity.RoleOperator, -time.Minute)
	c, err := New(Config{Identity: store, Addresses: []string{"127.0.0.1:1"}, Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := func() *fault.Error {
		_, err := c.Cluster.GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
		return Fault(err)
	}
	if f := call(); f.Kind != fault.Expired || !strings.Contains(f.Error(), "operator x") || !strings.Contains(f.Help, "farrier-coordinator operator-token x") {
		t.Errorf("an ended certificate: %v (%s)", f, f.Help)
	}
	elsewhere, err := identity.OpenStore(store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	issue(t, ca, elsewhere, identity.RoleOperator, time.Hour)
	if f := call(); f.Kind != fault.Unavailable {
		t.Errorf("after another process renewed it: %v", f)
	}
}

func TestLearnKeepsWhatIsInUse(t *testing.T) {
	for _, c := range []struct {
		name, from string
		have       []string
		current    int
		members    []string
		want       []string // nil: no change
		using      string
	}{
		{"a member joined", "a:1", []string{"a:1"}, 0, []string{"a:1", "b:1"}, []string{"a:1", "b:1"}, "a:1"},
		{"the first left", "b:1", []string{"a:1", "b:1"}, 1, []string{"b:1", "c:1"}, []string{"b:1", "c:1"}, "b:1"},
		{"the same in another order", "a:1", []string{"b:1", "a:1"}, 1, []string{"a:1", "b:1"}, nil, "a:1"},
		{"through a tunnel", "localhost:9", []string{"localhost:9"}, 0, []string{"a:1", "b:1"}, []string{"localhost:9", "a:1", "b:1"}, "localhost:9"},
		{"through a tunnel, again", "localhost:9", []string{"localhost:9", "a:1"}, 0, []string{"a:1"}, nil, "localhost:9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &endpoints{addresses: c.have, current: c.current}
			got, changed := e.learn(c.from, c.members)
			if changed != (c.want != nil) || !slices.Equal(got, c.want) || e.pick() != c.using {
				t.Errorf("%v %v, in use %s", got, changed, e.pick())
			}
		})
	}
}

func TestFaultReadsDetails(t *testing.T) {
	ce := connect.NewError(connect.CodeFailedPrecondition, errors.New("locked"))
	d, err := connect.NewErrorDetail(&farrierv1.ErrorDetail{Kind: "locked", Message: "held by agent a", Help: "wait",
		Lock: &farrierv1.Lock{Holder: "agent a", Token: 7, Purpose: "deploy"}})
	if err != nil {
		t.Fatal(err)
	}
	ce.AddDetail(d)
	f := Fault(fmt.Errorf("call: %w", ce))
	if f.Kind != fault.Locked || f.Error() != "held by agent a" || f.Help != "wait" {
		t.Errorf("got %+v", f)
	}
	if l, ok := f.Detail.(*fault.LockDetail); !ok || l.Token != 7 || l.Holder != "agent a" {
		t.Errorf("detail %+v", f.Detail)
	}
	if f := Fault(connect.NewError(connect.CodeUnavailable, errors.New("refused"))); f.Kind != fault.Unavailable || f.Help == "" {
		t.Errorf("an error without details: %+v", f)
	}
	if Fault(nil) != nil {
		t.Error("nil is not nil")
	}
}

// TestWhoNoticedTheDeadlineFirst: a coordinator that sees the caller's deadline pass a moment before the caller does must
// not hide what an earlier try was told.
func TestWhoNoticedTheDeadlineFirst(t *testing.T) {
	told := func(code connect.Code, kind, message, help string) error {
		ce := connect.NewError(code, errors.New(message))
		d, err := connect.NewErrorDetail(&farrierv1.ErrorDetail{Kind: kind, Message: message, Help: help})
		if err != nil {
			t.Fatal(err)
		}
		ce.AddDetail(d)
		return ce
	}
	noQuorum := told(connect.CodeUnavailable, "no_quorum", "no coordinator leads", "start them")
	timeout := told(connect.CodeDeadlineExceeded, "timeout", "no coordinator leads: too late", "start them")
	for _, c := range []struct {
		name    string
		answers []error
		kind    fault.Kind
		says    []string
	}{
		{"told before", []error{noQuorum, timeout}, fault.NoQuorum, []string{"no coordinator leads", "start them"}},
		{"never told", []error{timeout}, fault.Timeout, []string{"in time", "no coordinator leads", "start them", "--timeout"}},
		{"noticed here", []error{connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)}, fault.Timeout, []string{"in time", "--timeout"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			next := func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
				err := c.answers[0]
				c.answers = c.answers[1:]
				return nil, err
			}
			_, err := (&Client{patience: time.Hour, cert: certificate{store: newStore(t, newCA(t), identity.RoleOperator, time.Hour)}}).unary(next)(ctx, readOnly{connect.NewRequest(&farrierv1.ListNodesRequest{})})
			f := Fault(err)
			if f.Kind != c.kind {
				t.Errorf("%v: %s instead of %s", f, f.Kind, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(f.Error()+"\n"+f.Help, s) {
					t.Errorf("%v (%s) does not say %q", f, f.Help, s)
				}
			}
		})
	}
}

// readOnly is a request of a method that changes nothing.
type readOnly struct{ connect.AnyRequest }

func (readOnly) Spec() connect.Spec {
	return connect.Spec{IdempotencyLevel: connect.IdempotencyNoSideEffects}
}

func TestSettled(t *testing.T) {
	for _, c := range []struct {
		n    *farrierv1.Node
		want bool
	}{
		{&farrierv1.Node{ProvisionState: "active", Flow: &farrierv1.Flow{State: "done"}}, true},
		{&farrierv1.Node{ProvisionState: "deploy failed", Flow: &farrierv1.Flow{State: "failed"}}, true},
		{&farrierv1.Node{ProvisionState: "wait call-back", Flow: &farrierv1.Flow{State: "open"}}, false},
		{&farrierv1.Node{ProvisionState: "deleting"}, false},
		{&farrierv1.Node{ProvisionState: "active", TargetPowerState: "power off"}, false},
	} {
		if Settled(c.n) != c.want {
			t.Errorf("Settled(%v) is %v", c.n, !c.want)
		}
	}
}
