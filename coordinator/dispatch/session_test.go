package dispatch

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/identity"
)

func renewedTo(seq uint64) func(*farrierv1.CoordinatorMessage) bool {
	return func(m *farrierv1.CoordinatorMessage) bool { return m.GetRenewed().GetSeq() == seq }
}

func TestRenewalsKeepTheSession(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	for seq := uint64(1); seq <= 20; seq++ { // ten seconds, five lives of a session
		a.send(a.renew(seq))
		for _, m := range a.barrier() {
			if m.GetRenewed() != nil {
				t.Fatalf("renewal %d was acknowledged before its tick", m.GetRenewed().Seq)
			}
		}
		r.tick(500 * time.Millisecond)
		a.await("acknowledged renewal", renewedTo(seq))
	}
	if _, live := r.model.View().Session(a.session); !live {
		t.Fatal("the session ended although it was renewed")
	}
	if got := r.model.View().Elapsed(); got != 10*time.Second {
		t.Errorf("elapsed is %v after ten seconds of ticks", got)
	}
}

func TestTicksAreBoundedAndTheFirstOfATermMovesNothing(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	r.tick(time.Hour) // a suspended leader
	if got := r.model.View().Elapsed(); got != time.Second {
		t.Errorf("one tick moved time by %v", got)
	}
	r.model.lead(2) // its first tick comes by itself, at once
	r.until(func() bool {
		s, live := r.model.View().Session(a.session)
		return live && s.Deadline == 3*time.Second
	})
	if got := r.model.View().Elapsed(); got != time.Second {
		t.Errorf("the first tick of a term moved time to %v", got)
	}
}

func TestTimeStandsStillWithoutReason(t *testing.T) {
	r := newRig(t)
	before := r.model.View().Index()
	r.tick(time.Second)
	if got := r.model.View().Index(); got != before {
		t.Errorf("%d entries for nothing", got-before)
	}
}

func TestIdleTimeIsNotChargedToANewSession(t *testing.T) {
	r := newRig(t)
	r.tick(10 * time.Second) // nobody is there
	a := r.agent("a").connect()
	r.tick(250 * time.Millisecond)
	s, live := r.model.View().Session(a.session)
	if left := s.Deadline - r.model.View().Elapsed(); !live || left != 1750*time.Millisecond {
		t.Errorf("250 ms after its opening the session has %v left of 2 s", left)
	}
}

func TestLostRenewalsEndTheSession(t *testing.T) {
	r := newRig(t)
	a, b := r.agent("a").connect(), r.agent("b")
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	first := a.order(id)
	b.connect()
	for seq := uint64(1); seq <= 6; seq++ { // b renews, a does not
		b.send(b.renew(seq))
		b.barrier()
		r.tick(500 * time.Millisecond)
	}
	a.await("end of the session", func(m *farrierv1.CoordinatorMessage) bool { return m.GetSessionEnded() != nil })
	a.ended()
	b.assigned(id)
	second := b.order(id)
	if second.Ref.Token <= first.Ref.Token {
		t.Errorf("the new owner's token %d does not rise above %d", second.Ref.Token, first.Ref.Token)
	}
	if second.Ref.Attempt != first.Ref.Attempt || second.Ref.Flow != first.Ref.Flow || !second.Resumed {
		t.Errorf("the flow did not go on: %v after %v, resumed %v", second.Ref, first.Ref, second.Resumed)
	}
}

func TestReconnectResumesAndIsToldEverything(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	first := a.order(id)
	was := a.session
	a.cut()
	a.connect()
	if a.session != was {
		t.Errorf("session %s became %s", was, a.session)
	}
	a.assigned(id)
	if again := a.order(id); !proto.Equal(again.Ref, first.Ref) {
		t.Errorf("the order came again as %v, was %v", again.Ref, first.Ref)
	}
	a.await("synced", func(m *farrierv1.CoordinatorMessage) bool { return m.GetSynced() != nil })
}

func TestNewStreamEndsTheOldOne(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	again := r.agent("a")
	again.store = a.store
	again.connect()
	a.ended()
	if again.session != a.session {
		t.Error("the second stream of one incarnation has another session")
	}
}

func TestJournalOutcomesComeBeforeOrders(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	o := a.order(id)
	a.cut()
	a.hello.Outcomes = []*farrierv1.StepOutcome{{Ref: o.Ref, Ok: true, Facts: map[string]string{"power_state": "power off"}}}
	a.dial()
	sawConfirmed := false
	a.await("synced", func(m *farrierv1.CoordinatorMessage) bool {
		sawConfirmed = sawConfirmed || proto.Equal(m.GetConfirmed().GetRef(), o.Ref)
		if m.GetOrder() != nil {
			t.Errorf("the finished step was ordered again: %v", m.GetOrder())
		}
		return m.GetSynced() != nil
	})
	if !sawConfirmed {
		t.Error("the outcome in hello was not confirmed")
	}
	if n := r.get(id); n.Provision.String() != "manageable" {
		t.Errorf("the node is %s", n.Provision)
	}
}

func TestFollowerRedirects(t *testing.T) {
	r := newRig(t)
	r.model.lead(0)
	a := r.agent("a").dial()
	m := a.await("redirect", func(m *farrierv1.CoordinatorMessage) bool { return m.GetRedirect() != nil })
	if m.GetRedirect().LeaderAddress != "c2:7602" {
		t.Errorf("redirected to %q", m.GetRedirect().LeaderAddress)
	}
	a.ended()
}

func TestLostLeadershipRedirects(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	r.model.lead(0)
	a.await("redirect", func(m *farrierv1.CoordinatorMessage) bool { return m.GetRedirect().GetLeaderAddress() == "c2:7602" })
	a.ended()
}

func TestHelloIsChecked(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		store  *identity.Store
		change func(*farrierv1.Hello)
		want   string
	}{
		"another's name":  {nil, func(h *farrierv1.Hello) { h.Agent = "b" }, "certificate is of agent a"},
		"another's group": {nil, func(h *farrierv1.Hello) { h.Group = "rack2" }, "certificate is of group"},
		"no drivers":      {nil, func(h *farrierv1.Hello) { h.Drivers = nil }, "hardware types"},
		"no journal":      {nil, func(h *farrierv1.Hello) { h.JournalId = nil }, "journal id"},
		"newer level":     {nil, func(h *farrierv1.Hello) { h.FeatureLevel = 99 }, "level 99"},
		"operator": {r.store(identity.Peer{Cluster: cluster, Role: identity.RoleOperator, Name: "alice"}), func(*farrierv1.Hello) {},
			"operator"},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.agent("a")
			c.change(a.hello)
			if c.store != nil {
				a.store = c.store
			}
			if err := a.dial().ended(); !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused with %q, want %q in it", err, c.want)
			}
		})
	}
}

func TestGroupInfo(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	of := func(n int) func(*farrierv1.CoordinatorMessage) bool {
		return func(m *farrierv1.CoordinatorMessage) bool {
			return m.GetGroupInfo() != nil && len(m.GetGroupInfo().Agents) == n
		}
	}
	a.await("group of one", of(1))
	b := r.agent("b").connect()
	b.await("group of two", of(2))
	got := a.await("group of two", of(2)).GetGroupInfo().Agents[1]
	if got.Name != "b" || got.RamdiskUrl != "https://b:8443" || got.HttpUrl != "http://b:8080" || got.RamdiskPin != "00" {
		t.Errorf("the other agent is %v", got)
	}
}

// TestAgentsAreToldOfARemovedCoordinator: at once, and whoever comes later.
func TestAgentsAreToldOfARemovedCoordinator(t *testing.T) {
	r := newRig(t)
	a, b := r.agent("a"), r.agent("b")
	key := r.store(identity.Peer{Cluster: cluster, Role: identity.RoleCoordinator, Name: "c3"}).Pin()
	r.apply(command.CreateJoinToken{ID: "t", Role: "coordinator", Name: "c3", TTL: time.Minute})
	r.apply(command.UseJoinToken{ID: "t", Role: "coordinator", Key: key})
	told := func(m *farrierv1.CoordinatorMessage) bool {
		keys := m.GetGroupInfo().GetRevokedCoordinators()
		return len(keys) == 1 && [32]byte(keys[0]) == key
	}
	a.connect().await("group", func(m *farrierv1.CoordinatorMessage) bool { return m.GetGroupInfo() != nil && !told(m) })
	r.apply(command.RemoveMember{ID: "c3"})
	a.await("revoked coordinator", told)
	b.connect().await("revoked coordinator", told)
}

// TestRevokedAgentsStreamEnds: it is told, its machines have another owner, and its certificate opens no session.
func TestRevokedAgentsStreamEnds(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.assigned(id)
	b := r.agent("b").connect()
	r.apply(command.RemoveAgent{Agent: "a"})
	a.await("end of the session", func(m *farrierv1.CoordinatorMessage) bool { return m.GetSessionEnded() != nil })
	a.ended()
	b.assigned(id)
	if err := a.dial().ended(); !strings.Contains(err.Error(), "agent a was revoked by operator alice") {
		t.Errorf("it came back: %v", err)
	}
	stranger := r.agent("b")
	stranger.store = r.store(identity.Peer{Cluster: cluster, Role: identity.RoleAgent, Name: "b", Group: "rack1"})
	if err := stranger.dial().ended(); !strings.Contains(err.Error(), "has not certified the key of agent b") {
		t.Errorf("a key that the cluster does not know: %v", err)
	}
}
