package apply

import (
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/step"
)

// TestARestartOfTheBMCFailedADeploy: it takes minutes, and the attempts were used up in seconds.
func TestARestartOfTheBMCFailedADeploy(t *testing.T) {
	for verb, least := range map[string]time.Duration{"active": 2 * time.Minute, "manage": 5 * time.Second} {
		w := newWorld(t)
		session := w.agent("r1", 1)
		id := w.create(1)
		if verb == "active" {
			w.to(id, "manage", "provide")
		}
		w.must(w.verb(id, verb))
		from, kind := w.s.Root.Elapsed, w.flow(id).Kind
		for w.node(id).FlowOpen && !w.flow(id).Failing() {
			wait := w.flow(id).Step().Attempt.NotBefore - w.s.Root.Elapsed
			if wait > time.Minute {
				t.Fatalf("the next attempt waits %s", wait)
			}
			w.ticks(wait, session)
			w.must(w.failure(id, true))
		}
		if took := w.s.Root.Elapsed - from; took < least || took > 2*least {
			t.Errorf("%s gave up after %s", kind, took)
		}
	}
	// An abort does not wait for the pause, nor does the cleanup.
	w, id, _ := deploying(t, "management.set_boot_device")
	w.must(w.failure(id, true))
	w.must(w.verb(id, "abort"))
	w.run(id)
	w.is(id, "deploy failed")
}

// oneShot is a deploy whose step in work is made a one-shot.
func oneShot(t *testing.T) (*world, node.ID, string) {
	w, id, session := deploying(t, "management.set_boot_device")
	f := w.flow(id).Clone()
	f.Step().Class = step.OneShot
	w.s.Flows.Put(&w.s.Log, f)
	return w, id, session
}

// TestAOneShotWasRepeated: no retry, timeout or new owner runs it again.
func TestAOneShotWasRepeated(t *testing.T) {
	for name, trouble := range map[string]func(*world, node.ID, string){
		"unavailable": func(w *world, id node.ID, _ string) { w.must(w.failure(id, true)) },
		"timeout": func(w *world, id node.ID, session string) {
			w.ticks(w.s.Root.Settings.StepDeadline, session)
			w.must(timeoutOf(w, id))
		},
		"restart of the agent": func(w *world, id node.ID, _ string) {
			session := w.agent("r1", 2)
			w.ticks(w.flow(id).Step().Attempt.Deadline-w.s.Root.Elapsed, session)
			w.must(timeoutOf(w, id))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, id, session := oneShot(t)
			at := w.flow(id).Cur
			trouble(w, id, session)
			if st := w.flow(id).Steps[at]; st.Attempt.N != 1 || st.Attempt.Open || st.Status == flow.Pending {
				t.Errorf("%+v", st)
			}
			if !w.flow(id).Failing() {
				t.Error("nobody is asked")
			}
			w.run(id)
			w.is(id, "deploy failed")
		})
	}

	// One that is done is not done again by a new boot, and a late report of the owner before still counts.
	w, id, _ := oneShot(t)
	at := w.flow(id).Cur
	report := w.done(id)
	w.agent("r1", 2)
	w.must(report)
	w.parkInRamdisk(id)
	w.must(command.Edge{Node: id, Flow: w.flow(id).ID, Boot: w.flow(id).Boot.ID, Kind: "silent"})
	w.run(id)
	w.is(id, "active")
	if st := w.flow(id).Steps[at]; st.Attempt.N != 1 {
		t.Errorf("%d attempts", st.Attempt.N)
	}
}
