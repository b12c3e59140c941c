package apply

import (
	"fmt"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/step"
)

// journeys are the step lists: what brings a node to their start, the verb, and where they end.
var journeys = []struct {
	name  string
	prep  []string
	start func(*world, node.ID) command.Body
	end   string
}{
	{"verify", nil, verbOf("manage"), "manageable"},
	{"inspect", []string{"manage"}, verbOf("inspect"), "manageable"},
	{"automated clean", []string{"manage"}, verbOf("provide"), "available"},
	{"manual clean", []string{"manage"}, verbOf("clean"), "manageable"},
	{"deploy", []string{"manage", "provide"}, verbOf("active"), "active"},
	{"rebuild", []string{"manage", "provide", "active"}, verbOf("rebuild"), "active"},
	{"undeploy", []string{"manage", "provide", "active"}, verbOf("deleted"), "available"},
	{"power on", []string{"manage"}, powerOf("power on"), "manageable"},
	{"reboot", []string{"manage"}, powerOf("rebooting"), "manageable"},
	{"soft power off", []string{"manage"}, powerOf("soft power off"), "manageable"},
	{"soft reboot", []string{"manage"}, powerOf("soft rebooting"), "manageable"},
}

func verbOf(verb string) func(*world, node.ID) command.Body {
	return func(w *world, id node.ID) command.Body { return w.verb(id, verb) }
}

func powerOf(target string) func(*world, node.ID) command.Body {
	return func(_ *world, id node.ID) command.Body { return command.SetPower{Node: id, Target: target} }
}

// eachStep runs every journey once per step of it: trouble strikes while that step is open, then the rest
// succeeds, and the node has to be at the journey's end.
func eachStep(t *testing.T, end bool, trouble func(t *testing.T, w *world, id node.ID)) {
	for _, j := range journeys {
		for at := 0; ; at++ {
			w := newWorld(t)
			w.agent("r1", 1)
			w.agent("r2", 1)
			id := w.create(1)
			w.to(id, j.prep...)
			w.must(j.start(w, id))
			for i := 0; i < at && w.open(id); i++ {
				w.must(w.done(id))
			}
			if !w.open(id) {
				break
			}
			name := fmt.Sprintf("%s/%d %s", j.name, at, w.flow(id).Step().FullName())
			t.Run(name, func(t *testing.T) {
				w.t = t
				trouble(t, w, id)
				w.run(id)
				if end {
					w.is(id, j.end)
				}
				if err := w.s.invariants(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestOutcomesRepeated(t *testing.T) {
	eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
		report := w.done(id)
		w.must(report)
		sums := []uint64{w.s.Nodes.Sum(), w.s.Flows.Sum(), w.s.Inventories.Sum(), w.s.Root.Cluster.Tokens}
		if res := w.must(report); res.Flags&command.FlagLate == 0 {
			t.Error("the repeated report was not called late")
		}
		for i, sum := range []uint64{w.s.Nodes.Sum(), w.s.Flows.Sum(), w.s.Inventories.Sum(), w.s.Root.Cluster.Tokens} {
			if sum != sums[i] {
				t.Errorf("the repeated report changed table %d", i)
			}
		}
	})
}

func TestRetryableFailureAtEachStep(t *testing.T) {
	eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
		if w.flow(id).Step().Executor == step.Wait {
			return // a wait has no outcome
		}
		n := w.flow(id).Step().Attempt.N
		w.must(w.failure(id, true))
		if st := w.flow(id).Step(); st.Attempt.N != n+1 || !st.Attempt.Open {
			t.Errorf("after a retryable failure: %+v", st.Attempt)
		}
	})
}

// TestFailureThenAgain fails each step for good, and then asks for the same once more.
func TestFailureThenAgain(t *testing.T) {
	again := map[string][]string{
		"enroll": {"manage"}, "manageable": nil, "inspect failed": {"manage"}, "clean failed": {"manage"},
		"deploy failed": {"active"}, "error": {"deleted"},
	}
	eachStep(t, false, func(t *testing.T, w *world, id node.ID) {
		if w.flow(id).Step().Executor == step.Wait {
			w.ticks(w.s.Root.Settings.DeployTimeout, w.s.Agent("r1").Session, w.s.Agent("r2").Session)
			w.must(timeoutOf(w, id))
		} else {
			w.must(w.failure(id, false))
		}
		w.run(id)
		n := w.node(id)
		if n.LastError == "" || n.Lock.Held() || n.FlowOpen {
			t.Fatalf("after the failure: %+v", n)
		}
		verbs, known := again[n.Provision.String()]
		if !known {
			t.Fatalf("after the failure the node is %s", n.Provision)
		}
		w.must(command.SetMaintenance{Node: id})
		w.to(id, verbs...)
		if failed := w.node(id).Provision; failed.Failed() {
			t.Errorf("after the repeat the node is %s: %s", failed, w.node(id).LastError)
		}
	})
}

// TestOwnerDies ends the owner's session in the middle of each step: the work goes on with the other agent, as
// the same attempt under a new token.
func TestOwnerDies(t *testing.T) {
	eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
		old := w.node(id).Owner
		before := *w.flow(id).Step()
		w.must(command.CloseSession{Session: w.s.Agent(old).Session, Reason: "killed"})
		n, st := w.node(id), w.flow(id).Step()
		if n.Owner == old || n.PrevOwner != "" {
			t.Fatalf("owner %s, previous %q", n.Owner, n.PrevOwner)
		}
		if st.Attempt.N != before.Attempt.N || !st.Attempt.Open {
			t.Fatalf("attempt %+v became %+v", before.Attempt, st.Attempt)
		}
		if st.Executor == step.Wait {
			return
		}
		if st.Attempt.Token <= before.Attempt.Token || !st.Attempt.Resumed {
			t.Errorf("attempt %+v became %+v", before.Attempt, st.Attempt)
		}
		changing := st.Executor == step.BMC && st.Class != step.Read
		if changing != (st.Attempt.NotBefore == w.s.Root.Elapsed+w.s.Root.Settings.BMCChangeDeadline) {
			t.Errorf("%s (%s) is held back until %s", st.FullName(), st.Class, st.Attempt.NotBefore)
		}
	})
}

func TestOwnerDiesAloneAndReturns(t *testing.T) {
	eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
		for _, a := range []string{"r1", "r2"} {
			w.must(command.CloseSession{Session: w.s.Agent(a).Session, Reason: "power cut"})
		}
		if err := w.s.invariants(); err != nil {
			t.Fatal(err)
		}
		if n := w.node(id); n.Owner != "" || !n.FlowOpen {
			t.Fatalf("%+v", n)
		}
		w.agent("r2", 2)
		if w.node(id).Owner != "r2" {
			t.Fatalf("owner %q", w.node(id).Owner)
		}
	})
}

func TestOwnerRestarts(t *testing.T) {
	eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
		owner := w.node(id).Owner
		before := w.flow(id).Step().Attempt
		w.agent(owner, 2)
		n, st := w.node(id), w.flow(id).Step()
		if n.Owner != owner {
			t.Fatalf("the node moved to %s", n.Owner)
		}
		if st.Attempt.N != before.N || st.Executor != step.Wait && st.Attempt.Token <= before.Token {
			t.Errorf("attempt %+v became %+v", before, st.Attempt)
		}
	})
}

func TestOwnerIsDrained(t *testing.T) {
	eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
		old := w.node(id).Owner
		if res := w.must(command.SetDrain{Agent: old, On: true}); res.Count != 1 {
			t.Fatalf("%d nodes move", res.Count)
		}
		n := w.node(id)
		if n.Owner == old || n.PrevOwner != old {
			t.Fatalf("owner %s, previous %q", n.Owner, n.PrevOwner)
		}
		if res := w.must(command.HandoverAck{Node: id, Agent: old, Epoch: n.Epoch - 1}); res.Flags&command.FlagLate == 0 {
			t.Error("an acknowledgement of an earlier epoch counts")
		}
		w.must(command.HandoverAck{Node: id, Agent: old, Epoch: n.Epoch})
		if w.node(id).PrevOwner != "" {
			t.Error("the handover does not end")
		}
		if w.flow(id).Step().Attempt.NotBefore != 0 {
			t.Error("a handover that was acknowledged holds the new owner back")
		}
	})
}

func TestRamdiskIsLost(t *testing.T) {
	for _, kind := range []string{"silent", "unexpected_boot"} {
		eachStep(t, true, func(t *testing.T, w *world, id node.ID) {
			f := w.flow(id)
			ramdisk, boot, done := f.Step().Executor == step.Ramdisk, f.Boot.ID, doneSteps(f)
			w.must(command.Edge{Node: id, Flow: f.ID, Boot: boot, Kind: kind})
			if !ramdisk {
				return
			}
			f = w.flow(id)
			if f.Step().FullName() != flow.StepPowerOff || f.Cur != 0 || f.Boot.ID != "" {
				t.Fatalf("after %s: %s, boot %q", kind, f.Step().FullName(), f.Boot.ID)
			}
			w.must(w.done(id))
			if f = w.flow(id); f.Boot.ID == boot || f.Boot.ID == "" {
				t.Fatalf("boot attempt %q follows %q", f.Boot.ID, boot)
			}
			if doneSteps(f) != done {
				t.Errorf("%d ramdisk steps are done, %d were", doneSteps(f), done)
			}
		})
	}
}

func doneSteps(f *flow.Flow) (n int) {
	for i := range f.Steps {
		if f.Steps[i].Executor == step.Ramdisk && f.Steps[i].Status == flow.Done {
			n++
		}
	}
	return n
}

// TestLost repeats a lost ramdisk until the boot attempts are used up.
func TestRamdiskIsLostForGood(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	for range w.s.Root.Settings.BootTries {
		w.parkInRamdisk(id)
		w.must(command.Edge{Node: id, Boot: w.flow(id).Boot.ID, Kind: "silent"})
	}
	w.run(id)
	w.is(id, "deploy failed")
	if e := w.node(id).LastError; e != "deploy: deploy.select_disk: the ramdisk fell silent" {
		t.Fatal(e)
	}
}

func TestContactBeforeThePowerOnIsReported(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide")
	w.must(w.verb(id, "active"))
	for w.flow(id).Step().FullName() != flow.StepPowerOn {
		w.must(w.done(id))
	}
	w.must(command.Edge{Node: id, Boot: w.flow(id).Boot.ID, Kind: "first_contact", KeyHash: "k"})
	w.must(w.done(id))
	if st := w.flow(id).Step(); st.FullName() != flow.StepSelectDisk {
		t.Fatalf("the wait goes on at %s", st.FullName())
	}
	w.run(id)
	w.is(id, "active")
}

func TestSessionExpiresByTicks(t *testing.T) {
	w := newWorld(t)
	one, two := w.agent("r1", 1), w.agent("r2", 1)
	for i := range 20 {
		w.to(w.create(i), "manage")
	}
	w.ticks(time.Second, one, two)
	w.ticks(w.s.Root.Settings.SessionTTL, two)
	if w.s.Session(one) != nil || w.s.Session(two) == nil {
		t.Fatal("the wrong session ended")
	}
	if got := w.s.View().NodesWith("r2"); got != 20 {
		t.Fatalf("r2 has %d of 20 nodes", got)
	}
	w.must(command.Tick{D: time.Hour})
	if w.s.Session(two) == nil {
		t.Fatal("one tick of an hour ended a session")
	}
	w.must(command.Tick{FirstOfTerm: true, D: time.Hour})
	if got := w.s.Session(two).Deadline - w.s.Root.Elapsed; got != w.s.Root.Settings.SessionTTL {
		t.Fatalf("after the first tick of a term a session has %s", got)
	}
}

func TestNewGeneration(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage")
	w.must(w.verb(id, "provide"))
	w.parkInRamdisk(id)
	before := w.node(id).Token
	w.must(command.NewGeneration{Reason: "restore"})
	if w.s.Sessions.Len() != 0 {
		t.Fatal("sessions live on")
	}
	w.agent("r1", 2)
	if st := w.flow(id).Step(); st.Attempt.Token <= before || st.Attempt.Token.Generation() != 2 || !st.Attempt.Resumed {
		t.Fatalf("%+v after %s", st.Attempt, before)
	}
	w.run(id)
	w.is(id, "available")
}
