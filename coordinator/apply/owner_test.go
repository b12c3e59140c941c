package apply

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// TestAPersonsLockWasLostWithTheOwner: while a ramdisk works the lock is free and anybody may take it. What becomes of the
// owner is no reason to take it away.
func TestAPersonsLockWasLostWithTheOwner(t *testing.T) {
	for _, how := range []string{"death", "restart", "drain", "no agent left"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			w.agent("r1", 1)
			w.agent("r2", 1)
			id := w.create(1)
			w.to(id, "manage")
			w.must(w.verb(id, "provide"))
			w.parkInRamdisk(id)
			lock := w.request(command.AcquireLock{Node: id, Session: "cl", Holder: "operator alice"}, command.RequestID{Client: "cl", Seq: 1}).Token
			before := w.flow(id).Step().Attempt
			owner := w.node(id).Owner
			w.events = nil
			switch how {
			case "death":
				w.must(command.CloseSession{Session: w.s.Agent(owner).Session})
			case "restart":
				w.agent(owner, 2)
			case "drain":
				w.must(command.SetDrain{Agent: owner, On: true})
				w.must(command.HandoverAck{Node: id, Agent: owner, Epoch: w.node(id).Epoch})
			case "no agent left":
				w.must(command.CloseSession{Session: w.s.Agent("r1").Session})
				w.must(command.CloseSession{Session: w.s.Agent("r2").Session})
				w.agent("r1", 2)
			}
			if l := w.node(id).Lock; l.Token != lock || l.Holder != "operator alice" {
				t.Fatalf("the lock is held by %q under %s", l.Holder, l.Token)
			}
			for _, e := range w.events {
				if strings.HasPrefix(e.Type, "lock.") {
					t.Errorf("%s %v", e.Type, e.Fields)
				}
			}
			if st := w.flow(id).Step(); st.Attempt.N != before.N || st.Attempt.Token <= before.Token || st.Attempt.Token <= lock {
				t.Errorf("attempt %+v became %+v", before, st.Attempt)
			}
			if err := w.s.invariants(); err != nil {
				t.Error(err)
			}
			w.run(id)
			w.must(command.ReleaseLock{Node: id, Token: lock})
			w.run(id)
			w.is(id, "available")
		})
	}
}

// orphan has a node whose flow acts at the BMC, and takes the last agent away.
func orphan(t *testing.T, verb string) (*world, node.ID) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	if verb == "deleted" {
		w.to(id, "active")
	}
	w.must(w.verb(id, verb))
	w.must(command.RemoveAgent{Agent: "r1"})
	if n := w.node(id); n.Owner != "" || !n.Lock.Held() || n.Lock.Session != "" {
		t.Fatalf("owner %q, lock %+v", n.Owner, n.Lock)
	}
	return w, id
}

// TestANodeWithoutAnAgentCouldNotBeFreed: nobody will ever report the outcome of its step.
func TestANodeWithoutAnAgentCouldNotBeFreed(t *testing.T) {
	for name, c := range map[string]struct {
		verb string
		free func(*world, node.ID)
		end  string // "": the node is gone
	}{
		"abort":           {"active", func(w *world, id node.ID) { w.must(w.verb(id, "abort")) }, "deploy failed"},
		"abort tear down": {"deleted", func(w *world, id node.ID) { w.must(w.verb(id, "abort")) }, "error"},
		"break":           {"active", func(w *world, id node.ID) { w.must(command.BreakLock{Node: id, Reason: "the rack is gone"}) }, "deploy failed"},
		"delete": {"active", func(w *world, id node.ID) {
			w.refused(command.DeleteNode{Node: id}, fault.Locked)
			w.must(command.SetMaintenance{Node: id, On: true, Reason: "the rack is gone"})
			w.must(command.DeleteNode{Node: id})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, id := orphan(t, c.verb)
			c.free(w, id)
			if err := w.s.invariants(); err != nil {
				t.Error(err)
			}
			if c.end == "" {
				if w.s.Node(id) != nil || w.s.Flows.Len() != 0 {
					t.Error("something of the node is left")
				}
				return
			}
			w.is(id, c.end)
			if n := w.node(id); n.FlowOpen || n.Lock.Held() || !strings.Contains(n.LastError, "aborted by operator alice") {
				t.Errorf("%+v", n)
			}
		})
	}
}

// TestAbortBeforeTheLastAgentDied: it takes effect when nobody is left to end the step, and in the cleanup too.
func TestAbortBeforeTheLastAgentDied(t *testing.T) {
	for _, inCleanup := range []bool{false, true} {
		w := newWorld(t)
		w.agent("r1", 1)
		id := w.create(1)
		w.to(id, "manage", "provide")
		w.must(w.verb(id, "active"))
		w.must(w.done(id)) // power off
		if inCleanup {
			w.must(w.failure(id, false))
		}
		w.must(w.verb(id, "abort"))
		w.is(id, "deploying")
		w.must(command.CloseSession{Session: w.s.Agent("r1").Session})
		w.is(id, "deploy failed")
		if n := w.node(id); n.FlowOpen || n.Lock.Held() {
			t.Errorf("%+v", n)
		}
	}
}

// TestTheNextFlowOvertookTheDeadOwnersCall: the flow was abandoned with a changing call on its way.
func TestTheNextFlowOvertookTheDeadOwnersCall(t *testing.T) {
	w, id := orphan(t, "active")
	until := w.flow(id).Step().Attempt.NotBefore
	if until != w.s.Root.Elapsed+w.s.Root.Settings.BMCChangeDeadline {
		t.Fatalf("held back until %s", until)
	}
	w.must(w.verb(id, "abort"))
	w.must(command.OpenSession{Session: "two", Agent: "r2", Group: "default", Drivers: []string{"fake-hardware"}, Weight: 1, Journal: "j2", Incarnation: 1, Level: state.Level})
	w.must(w.verb(id, "active"))
	if st := w.flow(id).Step(); st.FullName() != flow.StepPowerOff || st.Attempt.NotBefore != until || st.Attempt.Deadline != until+w.s.Root.Settings.StepDeadline {
		t.Errorf("%s: %+v", st.FullName(), st.Attempt)
	}
}

// park takes a deploy to a step.
func (w *world) park(id node.ID, name string) {
	w.t.Helper()
	for w.flow(id).Step().FullName() != name {
		w.must(w.done(id))
	}
}

// deploying is a node of r1, in a deploy at a step.
func deploying(t *testing.T, at string) (w *world, id node.ID, session string) {
	w = newWorld(t)
	session = w.agent("r1", 1)
	id = w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	w.park(id, at)
	return w, id, session
}

// TestTheCallbackClockRanWhileNobodyCouldAct: in maintenance, before the owner before has let go, and without an owner. It
// starts with the full time when that is over.
func TestTheCallbackClockRanWhileNobodyCouldAct(t *testing.T) {
	stands := func(w *world, id node.ID) {
		t.Helper()
		if d := w.flow(id).Step().Attempt.Deadline; d != 0 {
			t.Errorf("%s has the deadline %s", w.flow(id).Step().FullName(), d)
		}
		if err := w.s.invariants(); err != nil {
			t.Error(err)
		}
	}
	runs := func(w *world, id node.ID, full time.Duration) {
		t.Helper()
		if d := w.flow(id).Step().Attempt.Deadline; d != w.s.Root.Elapsed+full {
			t.Errorf("%s has the deadline %s at %s", w.flow(id).Step().FullName(), d, w.s.Root.Elapsed)
		}
	}

	// A drain in maintenance, acknowledged or not.
	w, id, one := deploying(t, flow.StepWait)
	runs(w, id, w.s.Root.Settings.DeployTimeout)
	w.must(command.SetMaintenance{Node: id, On: true, Reason: "fan"})
	stands(w, id)
	two := w.agent("r2", 1)
	w.must(command.SetDrain{Agent: "r1", On: true})
	stands(w, id)
	w.must(command.HandoverAck{Node: id, Agent: "r1", Epoch: w.node(id).Epoch})
	stands(w, id)
	w.ticks(10*time.Minute, one, two)
	w.must(command.SetMaintenance{Node: id})
	runs(w, id, w.s.Root.Settings.DeployTimeout)

	// The only agent is away, at a wait and at a step of the ramdisk.
	for _, at := range []string{flow.StepWait, flow.StepWriteImage} {
		w, id, _ = deploying(t, at)
		w.must(command.CloseSession{Session: w.s.Agent("r1").Session})
		stands(w, id)
		w.ticks(10 * time.Minute)
		w.agent("r1", 2)
		if w.flow(id).Step().Executor == step.Wait {
			runs(w, id, w.s.Root.Settings.DeployTimeout)
		} else {
			runs(w, id, 7*24*time.Hour)
		}
	}

	// The owner before renews its session and does not let go.
	w, id, one = deploying(t, flow.StepPowerOff)
	two = w.agent("r2", 1)
	runs(w, id, w.s.Root.Settings.StepDeadline)
	w.must(command.SetDrain{Agent: "r1", On: true})
	stands(w, id)
	w.ticks(5*time.Minute, one, two)
	w.must(command.HandoverAck{Node: id, Agent: "r1", Epoch: w.node(id).Epoch})
	runs(w, id, w.s.Root.Settings.StepDeadline)
	w.run(id)
	w.is(id, "active")
}

// TestABootAttemptRanOutInMaintenance: the machine could never call back under it, and the deploy failed half an hour after
// maintenance had ended.
func TestABootAttemptRanOutInMaintenance(t *testing.T) {
	for _, at := range []string{"management.set_boot_device", flow.StepPowerOn, flow.StepWait} {
		for _, long := range []bool{false, true} {
			w, id, session := deploying(t, at)
			set := w.s.Root.Settings
			boot, boots := w.flow(id).Boot.ID, w.flow(id).Boots
			w.must(command.SetMaintenance{Node: id, On: true, Reason: "fan"})
			if at != flow.StepWait {
				w.must(w.done(id)) // the step that runs ends
			}
			away := set.BootTTL / 4
			if long {
				away = set.BootTTL + time.Minute
			}
			w.ticks(away, session)
			w.must(command.SetMaintenance{Node: id})
			if again := w.flow(id).Boot.ID != boot; again != long {
				t.Errorf("%s: after %s another boot attempt: %v", at, away, again)
			}
			if long {
				if st := w.flow(id).Step(); st.FullName() != flow.StepPowerOff {
					t.Errorf("%s: goes on at %s", at, st.FullName())
				}
				w.park(id, flow.StepWait)
			}
			if f := w.flow(id); f.Boots != boots {
				t.Errorf("%s: boot attempt %d was %d", at, f.Boots, boots)
			}
			w.run(id)
			w.is(id, "active")
		}
	}

	// The agent was away for as long.
	w, id, _ := deploying(t, flow.StepPowerOn)
	w.must(command.CloseSession{Session: w.s.Agent("r1").Session})
	w.ticks(31 * time.Minute)
	w.agent("r1", 2)
	if st := w.flow(id).Step(); st.FullName() != flow.StepPowerOff {
		t.Errorf("goes on at %s", st.FullName())
	}
	w.run(id)
	w.is(id, "active")
}

// TestAbortOfATearDown is the table's: it ends in error, with the instance, and can be asked for again.
func TestAbortOfATearDown(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	set := command.DefaultSettings()
	set.MaxClean = 1
	for i := range 2 {
		w.to(w.create(i), "manage", "provide", "active")
	}
	w.must(command.UpdateSettings{Settings: set})
	for i := range 2 {
		w.must(w.verb(nodeID(i), "deleted"))
	}
	queued := nodeID(1)
	if !w.flow(queued).Queued() {
		t.Fatal("the second tear down is not queued")
	}
	w.must(w.verb(queued, "abort"))
	w.is(queued, "error")
	if w.node(queued).Instance.UUID == "" {
		t.Error("the instance is gone")
	}
	w.must(w.verb(nodeID(0), "abort"))
	w.is(nodeID(0), "deleting") // at the end of the step
	w.run(nodeID(0))
	w.is(nodeID(0), "error")
	w.to(queued, "deleted")
	w.is(queued, "available")
	if slices.Contains(w.node(queued).StateDetail().LegalVerbs, "abort") {
		t.Error("abort is legal at rest")
	}
}

// TestADrainThatCouldNotMoveNeverDid: who comes later takes what stayed; asking again asks again.
func TestADrainThatCouldNotMoveNeverDid(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	if got := w.must(command.SetDrain{Agent: "r1", On: true}).Count; got != 0 {
		t.Fatalf("%d nodes move to nobody", got)
	}
	w.agent("r2", 1)
	if n := w.node(id); n.Owner != "r2" || n.PrevOwner != "r1" {
		t.Errorf("owner %q, previous %q", n.Owner, n.PrevOwner)
	}

	w = newWorld(t)
	w.agent("r1", 1)
	id = w.create(1)
	w.must(command.SetDrain{Agent: "r1", On: true})
	narrow := command.OpenSession{Session: "n", Agent: "r2", Group: "default", Drivers: []string{"redfish"}, Weight: 1, Journal: "j2", Incarnation: 1, Level: state.Level}
	w.must(narrow)
	if w.node(id).Owner != "r1" {
		t.Fatal("the node moved to an agent without its hardware type")
	}
	narrow.Session, narrow.Incarnation, narrow.Drivers = "m", 2, []string{"fake-hardware", "redfish"}
	w.must(narrow)
	if w.node(id).Owner != "r2" {
		t.Error("the hardware type that the other agent gained was not seen")
	}
	w.must(command.SetDrain{Agent: "r2", On: true})
	w.must(command.SetDrain{Agent: "r1", On: false})
	if w.node(id).Owner != "r1" {
		t.Error("the drain of r2 did not see that r1 takes nodes again")
	}
	if got := w.must(command.SetDrain{Agent: "r2", On: true}).Count; got != 0 {
		t.Errorf("a drain that is over moves %d", got)
	}
}

// TestADrainBackToTheOwnerBeforeLeftABootThatHadRunOut: the agent that never let go has the node again, but nothing that the
// machine could boot.
func TestADrainBackToTheOwnerBeforeLeftABootThatHadRunOut(t *testing.T) {
	w := newWorld(t)
	one := w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	for w.flow(id).Step().Executor != step.Wait {
		w.must(w.done(id))
	}
	two := w.agent("r2", 1)
	w.must(command.SetDrain{Agent: "r1", On: true})
	w.must(command.SetDrain{Agent: "r1"})
	if n := w.node(id); n.Owner != "r2" || n.PrevOwner != "r1" {
		t.Fatalf("owner %q, previous %q", n.Owner, n.PrevOwner)
	}
	boot := w.flow(id).Boot.ID
	w.ticks(w.s.Root.Settings.BootTTL, one, two)
	w.must(command.SetDrain{Agent: "r2", On: true})
	if n := w.node(id); n.Owner != "r1" || n.PrevOwner != "" {
		t.Fatalf("owner %q, previous %q", n.Owner, n.PrevOwner)
	}
	if w.flow(id).Boot.ID == boot {
		t.Error("the machine is waited for under a boot attempt that has ended")
	}
	w.run(id)
	w.is(id, "active")
}
