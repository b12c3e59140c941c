package apply

import (
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/state"
)

// TestALowerSessionTTLEndedLiveSessions: an agent was told its TTL when its session opened; it renews by that and counts its
// lease by that. The setting is for the sessions after it, and no deadline is taken back.
func TestALowerSessionTTLEndedLiveSessions(t *testing.T) {
	w := newWorld(t)
	set := command.DefaultSettings()
	set.SessionTTL = time.Minute
	w.must(command.UpdateSettings{Settings: set})
	long := w.agent("r1", 1)
	w.must(command.UpdateSettings{Settings: command.DefaultSettings()})
	short := w.agent("r2", 1)
	granted := time.Duration(0)
	for range 3 { // r1 renews every 15 s
		w.must(command.Tick{D: 250 * time.Millisecond, Renew: []string{long, short}})
		if got := w.s.Session(long).Deadline; got < granted || got != w.s.Root.Elapsed+time.Minute {
			t.Fatalf("at %s a session that was granted a minute ends at %s", w.s.Root.Elapsed, got)
		}
		granted = w.s.Session(long).Deadline
		w.ticks(15*time.Second, short)
	}
	if got := w.s.Session(short).Deadline - w.s.Root.Elapsed; got != 2*time.Second {
		t.Errorf("a session that was opened after the change has %s", got)
	}
	w.must(command.OpenSession{Session: "again", Agent: "r1", Group: "default", Drivers: []string{"redfish"}, Weight: 100, Journal: "j-r1", Incarnation: 1, Level: state.Level})
	w.must(command.Tick{FirstOfTerm: true})
	if got := w.s.Session(long).Deadline - w.s.Root.Elapsed; got != time.Minute {
		t.Errorf("resumed, and under a new leader, it has %s", got)
	}
	if got := w.s.Session(short).TTL; got != 2*time.Second {
		t.Errorf("TTL %s", got)
	}
}

// TestALowerCallDeadlineLetTheNewOwnerActTooEarly: the call that the old owner makes has the deadline of its order.
func TestALowerCallDeadlineLetTheNewOwnerActTooEarly(t *testing.T) {
	w := newWorld(t)
	set := command.DefaultSettings()
	set.BMCChangeDeadline = 40 * time.Second
	w.must(command.UpdateSettings{Settings: set})
	w.agent("r1", 1)
	w.agent("r2", 1)
	id := w.create(1)
	w.to(id, "manage")
	w.must(w.verb(id, "provide"))
	st := w.flow(id).Step()
	if st.FullName() != flow.StepPowerOff || st.Attempt.CallDeadline != 40*time.Second {
		t.Fatalf("%s: %+v", st.FullName(), st.Attempt)
	}
	set.BMCChangeDeadline = time.Second
	w.must(command.UpdateSettings{Settings: set})
	w.must(command.CloseSession{Session: w.s.Agent(w.node(id).Owner).Session, Reason: "killed"})
	if got := w.flow(id).Step().Attempt.NotBefore; got != w.s.Root.Elapsed+40*time.Second {
		t.Errorf("held back until %s at %s", got, w.s.Root.Elapsed)
	}
}
