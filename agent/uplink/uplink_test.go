package uplink

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/task"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestRedirectLeaderChangeAndResume plays the life of a session over three streams: a follower redirects to the
// leader, an order is run, the leader goes away before it confirms, and the next one is told what is held.
func TestRedirectLeaderChangeAndResume(t *testing.T) {
	p := newPKI(t)
	follower, first, second := newCoordinator(p, "c1"), newCoordinator(p, "c2"), newCoordinator(p, "c3")
	r := newRack(p, patience, follower.address)

	s := follower.next()
	if h := await(s, hello); h.GetAgent() != "rack1-a" || h.GetGroup() != "rack1" || h.GetIncarnation() != 1 || len(h.GetJournalId()) != 16 || h.GetSession() != "" {
		t.Errorf("hello %v", h)
	}
	s.send(redirect(first.address))
	s.cut()

	s = first.next()
	await(s, hello)
	s.send(welcome("s1", false), assign("n1", "boot1"), order("n1", 0, 5), synced())
	if o := <-r.started; o.Node != "n1" || o.Token != 5 || o.Full() != "power.power_on" {
		t.Errorf("started %+v", o)
	}
	one := await(s, renew)
	s.send(renewed(one.GetSeq()))
	if two := await(s, renew); two.GetSeq() <= one.GetSeq() {
		t.Errorf("renewal %d after %d", two.GetSeq(), one.GetSeq())
	}
	r.up.Edge(Edge{Node: "n1", BootID: "boot1", Flow: 1, Kind: "first_contact", KeyHash: "ab"})
	if e := await(s, edge); e.GetBootId() != "boot1" || e.GetKeyHash() != "ab" {
		t.Errorf("edge %v", e)
	}
	r.finish <- true
	done := await(s, outcome)
	if !done.GetOk() || done.GetRef().GetToken() != 5 || done.GetFacts()["power_state"] != "power on" {
		t.Errorf("outcome %v", done)
	}
	s.cut() // before it is confirmed

	s = follower.next()
	await(s, hello)
	s.send(redirect(second.address))
	s.cut()
	s = second.next()
	h := await(s, hello)
	if h.GetSession() != "s1" || len(h.GetOutcomes()) != 1 || h.GetOutcomes()[0].GetRef().GetNode() != "n1" || len(h.GetRunning()) != 0 {
		t.Errorf("hello to the new leader: %v", h)
	}
	s.send(welcome("s1", true), assign("n1", "boot1"), order("n1", 0, 5), synced())
	if again := await(s, outcome); !again.GetOk() { // a repeat is answered, not run
		t.Errorf("the repeat's answer: %v", again)
	}
	if e := await(s, edge); e.GetKind() != "first_contact" {
		t.Errorf("the edge was not said again: %v", e)
	}
	select {
	case o := <-r.started:
		t.Errorf("ran twice: %+v", o)
	default:
	}
	s.send(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Confirmed{Confirmed: &farrierv1.OutcomeConfirmed{Ref: done.GetRef()}}},
		&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Unassign{Unassign: &farrierv1.Unassign{Node: "n1", Epoch: 1}}})
	if td := await(s, teardown); td.GetNode() != "n1" || td.GetEpoch() != 1 {
		t.Errorf("teardown %v", td)
	}
	if held := r.tasks.Holding(); len(held.Unconfirmed) != 0 {
		t.Errorf("unconfirmed after the confirmation: %+v", held.Unconfirmed)
	}
}

// TestSessionEnds: what runs is stopped without a word, and the agent says hello anew.
func TestSessionEnds(t *testing.T) {
	p := newPKI(t)
	c := newCoordinator(p, "c1")
	r := newRack(p, patience, c.address)
	s := c.next()
	await(s, hello)
	s.send(welcome("s1", false), assign("n1", ""), order("n1", 0, 5), synced())
	<-r.started
	if !<-r.synced {
		t.Error("synced before the assignment was taken in")
	}
	s.send(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_SessionEnded{SessionEnded: &farrierv1.SessionEnded{Reason: "expired"}}})
	s = c.next()
	if h := await(s, hello); h.GetSession() != "" || len(h.GetOutcomes()) != 0 || len(h.GetRunning()) != 0 {
		t.Errorf("hello after the session's end: %v", h)
	}
	s.send(welcome("s2", false), assign("n1", ""), order("n1", 0, 6), synced())
	if o := <-r.started; o.Token != 6 || !o.Resumed {
		t.Errorf("the attempt that is ours again: %+v", o)
	}
	r.finish <- true
	if out := await(s, outcome); !out.GetOk() || out.GetRef().GetToken() != 6 {
		t.Errorf("outcome %v", out)
	}
}

// TestLocks: calls are answered, refused with their details, sent again on the session's next stream, and failed
// with the session.
// TestGroupTellsWhoIsThereAndWhoIsNotBelieved: a key that is none is passed over.
func TestGroupTellsWhoIsThereAndWhoIsNotBelieved(t *testing.T) {
	var agents []GroupAgent
	var revoked [][32]byte
	in := &inbound{u: New(Config{
		GroupChanged: func(g []GroupAgent) { agents = g },
		Revoked:      func(keys [][32]byte) { revoked = keys },
	})}
	key := [32]byte{1, 2, 3}
	err := in.take(&farrierv1.ConnectResponse{Messages: []*farrierv1.CoordinatorMessage{{Body: &farrierv1.CoordinatorMessage_GroupInfo{GroupInfo: &farrierv1.GroupInfo{
		Agents:              []*farrierv1.GroupAgent{{Name: "a", RamdiskUrl: "https://a:8443", HttpUrl: "http://a:8080", RamdiskPin: "00"}},
		RevokedCoordinators: [][]byte{key[:], []byte("short")},
	}}}}})
	if err != nil || len(agents) != 1 || agents[0] != (GroupAgent{"a", "https://a:8443", "http://a:8080", "00"}) || len(revoked) != 1 || revoked[0] != key {
		t.Errorf("%v: agents %v, revoked %v", err, agents, revoked)
	}
}

func TestLocks(t *testing.T) {
	p := newPKI(t)
	c := newCoordinator(p, "c1")
	r := newRack(p, patience, c.address)
	s := c.next()
	await(s, hello)
	s.send(welcome("s1", false), synced())
	type got struct {
		token uint64
		err   error
	}
	ends := make(chan got, 1)
	ask := func() {
		go func() {
			token, err := r.up.Lock(context.Background(), "n1", "sync", "power sync", task.DefaultWait())
			ends <- got{token, err}
		}()
	}
	reply := func(s *stream, l *farrierv1.LockReply) {
		s.send(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_LockReply{LockReply: l}})
	}
	ask()
	q := await(s, lockRequest)
	if q.GetNode() != "n1" || q.GetPurpose() != "power sync" || q.GetWait().GetWait().AsDuration() != 3*time.Second {
		t.Errorf("request %v", q)
	}
	reply(s, &farrierv1.LockReply{Call: q.GetCall(), Error: &farrierv1.ErrorDetail{Kind: "locked", Message: "held", Lock: &farrierv1.Lock{Holder: "agent x", Token: 4}}})
	refused := <-ends
	var f *fault.Error
	if !errors.As(refused.err, &f) || f.Kind != fault.Locked || f.Detail.(*fault.LockDetail).Holder != "agent x" {
		t.Errorf("refused: %v", refused.err)
	}
	ask()
	q = await(s, lockRequest)
	s.cut()
	s = c.next()
	await(s, hello)
	s.send(welcome("s1", true), synced())
	if again := await(s, lockRequest); again.GetCall() != q.GetCall() {
		t.Errorf("call %d was sent again as %d", q.GetCall(), again.GetCall())
	}
	reply(s, &farrierv1.LockReply{Call: q.GetCall(), Token: 9})
	if g := <-ends; g.token != 9 || g.err != nil {
		t.Errorf("granted: %+v", g)
	}
	go func() { ends <- got{0, r.up.Unlock(context.Background(), "n1", 9)} }()
	if rel := await(s, lockRelease); rel.GetToken() != 9 {
		t.Errorf("release %v", rel)
	} else {
		reply(s, &farrierv1.LockReply{Call: rel.GetCall()})
	}
	if g := <-ends; g.err != nil {
		t.Error(g.err)
	}
	ask()
	await(s, lockRequest)
	s.send(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_SessionEnded{SessionEnded: &farrierv1.SessionEnded{Reason: "expired"}}})
	if g := <-ends; !fault.Is(g.err, fault.Expired) {
		t.Errorf("a call of an ended session: %+v", g)
	}
}

// TestALockThatNobodyWaitsForIsGivenBack: a task that stopped waiting is granted the lock all the same; the node must not
// stay locked by an agent that does not know it, also when the stream that carried the release is cut.
func TestALockThatNobodyWaitsForIsGivenBack(t *testing.T) {
	p := newPKI(t)
	c := newCoordinator(p, "c1")
	r := newRack(p, patience, c.address)
	s := c.next()
	await(s, hello)
	s.send(welcome("s1", false), synced())
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.up.Lock(ctx, "n1", "sync", "power sync", task.DefaultWait())
		left <- err
	}()
	q := await(s, lockRequest)
	leave()
	if err := <-left; !fault.Is(err, fault.UnknownOutcome) {
		t.Errorf("the caller that left: %v", err)
	}
	s.send(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_LockReply{LockReply: &farrierv1.LockReply{Call: q.GetCall(), Token: 9}}})
	first := await(s, lockRelease)
	if first.GetNode() != "n1" || first.GetToken() != 9 {
		t.Errorf("release %v", first)
	}
	s.cut()
	s = c.next()
	await(s, hello)
	s.send(welcome("s1", true), synced())
	if again := await(s, lockRelease); again.GetToken() != 9 || again.GetCall() != first.GetCall() {
		t.Errorf("released again: %v", again)
	}
}

// TestTheLostLeaderWasAskedFirst: the coordinator whose stream was lost is asked again after the others were twice, as only
// one that is left, or none, can be.
func TestTheLostLeaderWasAskedFirst(t *testing.T) {
	for _, c := range []struct{ addresses, lost, want string }{
		{"a b c", "", "a b c a b c"},
		{"a b c", "a", "b c b c a b"},
		{"a b c", "b", "a c a c a b"},
		{"a b c", "elsewhere", "a b c a b c"},
		{"a", "a", "a a a"},
		{"a a", "a", "a a a"},
	} {
		turn := turns{addresses: strings.Fields(c.addresses)}
		if c.lost != "" {
			turn.lost(c.lost)
		}
		var got []string
		for range strings.Fields(c.want) {
			got = append(got, turn.next())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("of %s, with %q lost: %v, want %s", c.addresses, c.lost, got, c.want)
		}
	}
}

// TestSilentLeaderIsGivenUp: a coordinator that answers hello and acknowledges nothing is left for the next.
func TestSilentLeaderIsGivenUp(t *testing.T) {
	p := newPKI(t)
	silent, live := newCoordinator(p, "c1"), newCoordinator(p, "c2")
	newRack(p, 200*time.Millisecond, silent.address, live.address)
	s := silent.next()
	await(s, hello)
	s.send(welcome("s1", false), synced())
	if h := await(live.next(), hello); h.GetSession() != "s1" {
		t.Errorf("hello %v", h)
	}
}

func TestWireKeepsWhatOrdersSay(t *testing.T) {
	o, err := fromOrder(order("n1", 3, 7).GetOrder())
	if err != nil || o.Step != 3 || o.Token != 7 || o.Full() != "power.power_on" {
		t.Fatalf("%+v, %v", o, err)
	}
	back := ToOrder(o)
	if back.GetClass() != "set" || back.GetExecutor() != "bmc" || back.GetRef().GetToken() != 7 {
		t.Errorf("%v", back)
	}
	for _, bad := range []*farrierv1.Order{{Class: "sometimes", Executor: "bmc"}, {Class: "set", Executor: "cloud"}} {
		if _, err := fromOrder(bad); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	out := FromOutcome(&farrierv1.StepOutcome{Ref: ToRef(o.Ref, 7), Error: "no", ErrorKind: "corrupt", Retryable: true})
	if out.Kind != fault.Corrupt || out.Token != 7 || !out.Retryable || toOutcome(out).GetErrorKind() != "corrupt" {
		t.Errorf("%+v", out)
	}
}
