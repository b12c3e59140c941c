package powersync

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/task"
)

const (
	every    = 120 * time.Second
	recovery = 300 * time.Second
)

var errDead = errors.New("no answer within 30s")

func resting(id string, power bmc.PowerState) *task.Node {
	return &task.Node{ID: id, Epoch: 3, Watch: task.WatchPower, PowerState: power.String()}
}

// read has the only node's next reading end so, and returns what is to be said.
func read(t *testing.T, s *schedule, power bmc.PowerState, err error) (Seen, bool) {
	t.Helper()
	at, any := s.next()
	if !any {
		t.Fatal("nothing is due, ever")
	}
	e, due := s.take(at)
	if !due {
		t.Fatalf("nothing is due at %v", at)
	}
	return s.done(at, e, power, err)
}

func TestOnlyWhatIsNotKnownIsSaid(t *testing.T) {
	s := newSchedule(every, recovery)
	s.assigned(0, resting("n1", bmc.PowerOn))
	if seen, say := read(t, &s, bmc.PowerOn, nil); say {
		t.Errorf("said what is known: %+v", seen)
	}
	for range 2 { // until the coordinators know it
		if seen, say := read(t, &s, bmc.PowerOff, nil); !say || seen != (Seen{Node: "n1", Epoch: 3, Power: bmc.PowerOff}) {
			t.Errorf("said %v %+v", say, seen)
		}
	}
	s.assigned(0, resting("n1", bmc.PowerOff))
	if seen, say := read(t, &s, bmc.PowerOff, nil); say {
		t.Errorf("said what is known by now: %+v", seen)
	}
}

func TestTheThirdFailureInARowIsSaid(t *testing.T) {
	s := newSchedule(every, recovery)
	s.assigned(0, resting("n1", bmc.PowerOn))
	fails := func() bool {
		seen, say := read(t, &s, bmc.PowerUnknown, errDead)
		if say && (seen.Power != bmc.PowerUnknown || seen.Error == "") {
			t.Errorf("said %+v", seen)
		}
		return say
	}
	for range Failures - 1 {
		if fails() {
			t.Error("said before the third")
		}
	}
	read(t, &s, bmc.PowerOn, nil)
	for i := range Failures + 1 {
		if said := fails(); said != (i >= Failures-1) {
			t.Errorf("after an answer, failure %d is said: %v", i+1, said)
		}
	}
	ill := resting("n1", bmc.PowerUnknown)
	ill.Watch = task.WatchRecovery
	s.assigned(0, ill)
	for range Failures {
		if fails() {
			t.Error("said what is known")
		}
	}
	if seen, say := read(t, &s, bmc.PowerUnknown, nil); !say || seen.Error != "" {
		t.Errorf("the first answer is not said: %+v", seen)
	}
}

// TestAnEarlierAssignmentCountsForNothing: a reading that began under another epoch or watch says nothing of the present one.
func TestAnEarlierAssignmentCountsForNothing(t *testing.T) {
	for name, change := range map[string]func(n *task.Node){
		"another epoch":  func(n *task.Node) { n.Epoch++ },
		"in maintenance": func(n *task.Node) { n.Watch = task.WatchNone },
		"in recovery":    func(n *task.Node) { n.Watch = task.WatchRecovery },
	} {
		s := newSchedule(every, recovery)
		s.assigned(0, resting("n1", bmc.PowerOn))
		read(t, &s, bmc.PowerUnknown, errDead)
		read(t, &s, bmc.PowerUnknown, errDead)
		at, _ := s.next()
		e, _ := s.take(at)
		n := resting("n1", bmc.PowerOn)
		change(n)
		s.assigned(at, n)
		if seen, say := s.done(at, e, bmc.PowerUnknown, errDead); say {
			t.Errorf("%s: said %+v", name, seen)
		}
		s.missed(at, e)
		if want := 1; n.Watch != task.WatchNone && len(s.queue) != want || n.Watch == task.WatchNone && len(s.queue) != 0 {
			t.Errorf("%s: %d are due", name, len(s.queue))
		}
	}
	s := newSchedule(every, recovery)
	s.assigned(0, resting("n1", bmc.PowerOn))
	s.forgotten("n1")
	s.forgotten("n1")
	if _, any := s.next(); any || len(s.nodes) != 0 {
		t.Error("a node that is another's is looked at")
	}
}

// TestReadingsAreSpreadOverTheInterval: an agent with 2,500 nodes that starts, or takes over all of them, asks about twenty BMCs a
// second, and each once in the interval, at the same moment of each.
func TestReadingsAreSpreadOverTheInterval(t *testing.T) {
	const nodes = 2500
	start := 1000 * time.Hour
	s := newSchedule(every, recovery)
	for i := range nodes {
		s.assigned(start, resting(fmt.Sprintf("node-%d", i), bmc.PowerOn))
	}
	last := map[string]time.Duration{}
	for round := range 2 {
		inSecond := map[time.Duration]int{}
		for range nodes {
			at, _ := s.next()
			e, _ := s.take(at)
			if was, again := last[e.node]; round == 1 && (!again || at-was != every) {
				t.Fatalf("%s is read at %v after %v", e.node, at, was)
			}
			last[e.node] = at
			inSecond[at/time.Second]++
			s.done(at+50*time.Millisecond, e, bmc.PowerOn, nil)
		}
		for at, n := range inSecond {
			if n > 3*nodes/int(every/time.Second) {
				t.Errorf("%d readings in second %d", n, at)
			}
		}
	}
	if at := last["node-0"]; at <= start+every || at > start+2*every {
		t.Errorf("the second reading is at %v", at-start)
	}
}

func TestRecoveryIsTriedMoreSeldom(t *testing.T) {
	s := newSchedule(every, recovery)
	n := resting("n1", bmc.PowerUnknown)
	n.Watch = task.WatchRecovery
	s.assigned(0, n)
	first, _ := s.next()
	read(t, &s, bmc.PowerUnknown, errDead)
	if second, _ := s.next(); second-first != recovery {
		t.Errorf("tried again after %v", second-first)
	}
}

func TestABusyBMCIsLookedAtSoon(t *testing.T) {
	s := newSchedule(every, recovery)
	s.assigned(0, resting("n1", bmc.PowerOn))
	for range 2 * Failures {
		at, _ := s.next()
		e, _ := s.take(at)
		s.missed(at, e)
		if again, _ := s.next(); again-at != every/12 {
			t.Errorf("again after %v", again-at)
		}
	}
	if seen, say := read(t, &s, bmc.PowerUnknown, errDead); say {
		t.Errorf("a look that others kept from being one was counted: %+v", seen)
	}
}
