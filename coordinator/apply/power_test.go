package apply

import (
	"slices"
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/job"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// saw is what the node's owner says that it read; node.PowerUnknown is a BMC that does not answer.
func (w *world) saw(id node.ID, p node.Power) command.PowerSeen {
	n := w.node(id)
	c := command.PowerSeen{Node: id, Agent: n.Owner, Epoch: n.Epoch, Power: p}
	if p == node.PowerUnknown {
		c.Error = "no answer within 30s"
	}
	return c
}

// said is the newest event of a type, and how many events the last command left.
func (w *world) said(kind string) (fields map[string]string, events int) {
	emitted := w.s.Emitted()
	for _, e := range emitted {
		if e.Type == kind {
			fields = e.Fields
		}
	}
	return fields, len(emitted)
}

// active makes a node that rests with its power on.
func active(t *testing.T) (*world, node.ID) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide", "active")
	if p := w.node(id).Power; p != node.PowerOn {
		w.must(w.saw(id, node.PowerOn))
	}
	return w, id
}

func TestPowerThatWasSeenIsAdopted(t *testing.T) {
	w, id := active(t)
	before := w.node(id)
	w.must(w.saw(id, node.PowerOff))
	n := w.node(id)
	if n.Power != node.PowerOff || n.TargetPower != "" || n.FlowOpen || n.Lock.Held() || n.Maintenance || n.LastError != "" {
		t.Errorf("the node is %+v", n)
	}
	if n.Version != before.Version+1 {
		t.Errorf("version %d after %d", n.Version, before.Version)
	}
	e, _ := w.said(state.EventNodePower)
	if e["from"] != "power on" || e["to"] != "power off" || e["seen"] != "true" {
		t.Errorf("event %v", e)
	}
	w.must(command.SetPower{Node: id, Target: "power on"})
	w.run(id)
	for _, e := range w.events {
		if e.Type == state.EventNodePower && e.Fields["to"] == "power on" && e.Fields["seen"] != "" {
			t.Errorf("what was done is said to have been seen: %v", e.Fields)
		}
	}
}

// TestPowerThatIsNoNews: each row is a reading that has to change nothing, whatever it says.
func TestPowerThatIsNoNews(t *testing.T) {
	maintain := func(w *world, id node.ID) { w.must(command.SetMaintenance{Node: id, On: true, Reason: "fan"}) }
	for _, c := range []struct {
		name string
		prep func(w *world, id node.ID)
		saw  func(w *world, id node.ID) command.PowerSeen
	}{
		{"as it is known", nil, func(w *world, id node.ID) command.PowerSeen { return w.saw(id, node.PowerOn) }},
		{"of no node", nil, func(w *world, id node.ID) command.PowerSeen {
			return command.PowerSeen{Node: "none", Agent: "r1", Power: node.PowerOff}
		}},
		{"of another agent", nil, func(w *world, id node.ID) command.PowerSeen {
			c := w.saw(id, node.PowerOff)
			c.Agent = "r2"
			return c
		}},
		{"under an earlier epoch", nil, func(w *world, id node.ID) command.PowerSeen {
			c := w.saw(id, node.PowerOff)
			c.Epoch--
			return c
		}},
		{"of a power that there is not", nil, func(w *world, id node.ID) command.PowerSeen { return w.saw(id, node.PowerOff+1) }},
		{"before the owner before has let go", func(w *world, id node.ID) {
			w.agent("r2", 1)
			w.must(command.MoveNodes{Moves: []command.Move{{Node: id, From: "r1", To: "r2"}}})
		}, nil},
		{"while a power verb is in work", func(w *world, id node.ID) { w.must(command.SetPower{Node: id, Target: "power on"}) }, nil},
		{"while work is under way", func(w *world, id node.ID) { w.must(w.verb(id, "deleted")) }, nil},
		{"while the ramdisk works", func(w *world, id node.ID) { w.must(w.verb(id, "rebuild")); w.parkInRamdisk(id) }, nil},
		{"under somebody's lock", func(w *world, id node.ID) {
			w.must(command.AcquireLock{Node: id, Session: w.s.Agent("r1").Session, Holder: "agent r1"})
		}, nil},
		{"in a person's maintenance", maintain, nil},
		{"in maintenance for another fault", func(w *world, id node.ID) {
			w.must(command.SetMaintenance{Node: id, On: true, Reason: "x", Fault: job.FaultClean})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, id := active(t)
			if c.prep != nil {
				c.prep(w, id)
			}
			says := []command.PowerSeen{w.saw(id, node.PowerOff), w.saw(id, node.PowerUnknown)}
			if c.saw != nil {
				says = []command.PowerSeen{c.saw(w, id)}
			}
			for _, s := range says {
				tables := w.s.tableSums()
				res := w.must(s)
				if _, events := w.said(""); res.Flags&command.FlagLate == 0 || events != 0 || !slices.Equal(tables, w.s.tableSums()) {
					t.Errorf("%v changed something: %+v, %v", s, res, w.s.Emitted())
				}
			}
		})
	}
	t.Run("in enroll", func(t *testing.T) {
		w := newWorld(t)
		w.agent("r1", 1)
		id := w.create(1)
		if res := w.must(w.saw(id, node.PowerOn)); res.Flags&command.FlagLate == 0 || w.node(id).Power != node.PowerUnknown {
			t.Errorf("taken in: %+v", w.node(id))
		}
	})
}

func TestABMCThatDiesAndComesBack(t *testing.T) {
	w, id := active(t)
	w.must(w.saw(id, node.PowerUnknown))
	n := w.node(id)
	if !n.Maintenance || n.Fault != node.FaultPower || n.Power != node.PowerUnknown ||
		n.MaintenanceReason != "power failure: no answer within 30s" || n.LastError != n.MaintenanceReason || n.Provision.String() != "active" {
		t.Fatalf("the node is %+v", n)
	}
	if e, _ := w.said(state.EventMaintenance); e["on"] != "true" || e["fault"] != node.FaultPower || e["reason"] != n.MaintenanceReason {
		t.Errorf("event %v", e)
	}
	if res := w.must(w.saw(id, node.PowerUnknown)); res.Flags&command.FlagLate == 0 || w.node(id).Version != n.Version {
		t.Error("a BMC that is dead still is news")
	}
	w.must(w.saw(id, node.PowerOn))
	n = w.node(id)
	if n.Maintenance || n.Fault != "" || n.MaintenanceReason != "" || n.LastError != "" || n.Power != node.PowerOn {
		t.Errorf("after its return the node is %+v", n)
	}
	if e, _ := w.said(state.EventMaintenance); e["on"] != "false" {
		t.Errorf("event %v", e)
	}
}

// TestAPersonsMaintenanceOutlivesAPowerFailure: what a person said while the BMC was dead stays when it is back.
func TestAPersonsMaintenanceOutlivesAPowerFailure(t *testing.T) {
	w, id := active(t)
	w.must(w.saw(id, node.PowerUnknown))
	w.must(command.SetMaintenance{Node: id, On: true, Reason: "board ordered"})
	w.must(w.saw(id, node.PowerOff))
	n := w.node(id)
	if !n.Maintenance || n.MaintenanceReason != "board ordered" || n.Fault != "" || n.LastError != "" || n.Power != node.PowerOff {
		t.Errorf("the node is %+v", n)
	}
	if res := w.must(w.saw(id, node.PowerOn)); res.Flags&command.FlagLate == 0 {
		t.Error("the node is still looked after as one with a power failure")
	}
}

// TestWorkThatAPowerFailureHoldsGoesOn: a flow that waited for the end of maintenance would have kept its own end away, if only
// nodes without a flow were taken out of it.
func TestWorkThatAPowerFailureHoldsGoesOn(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage")
	w.must(w.saw(id, node.PowerUnknown))
	w.must(w.verb(id, "provide"))
	if st := w.flow(id).Step(); st.Attempt.Open {
		t.Fatalf("%s runs in maintenance", st.FullName())
	}
	w.must(w.saw(id, node.PowerOn))
	n := w.node(id)
	if n.Maintenance || n.Fault != "" || !w.flow(id).Step().Attempt.Open {
		t.Fatalf("the clean is held still: %+v", n)
	}
	w.run(id)
	w.is(id, "available")
}

// TestATearDownInAPowerFailure: the verb is let through, as in any maintenance, and the reading does not disturb its steps.
func TestATearDownInAPowerFailure(t *testing.T) {
	w, id := active(t)
	w.must(w.saw(id, node.PowerUnknown))
	w.must(w.verb(id, "deleted"))
	if res := w.must(w.saw(id, node.PowerOn)); res.Flags&command.FlagLate == 0 || !w.node(id).Maintenance {
		t.Error("a reading came between the steps of a flow that works")
	}
}

// TestAStepThatReadsThePowerEndsThePowerFailure: the BMC has answered, whoever asked.
func TestAStepThatReadsThePowerEndsThePowerFailure(t *testing.T) {
	w, id := active(t)
	w.must(w.saw(id, node.PowerUnknown))
	w.must(command.SetPower{Node: id, Target: "power off"})
	w.run(id)
	if n := w.node(id); n.Maintenance || n.Fault != "" || n.Power != node.PowerOff || n.LastError != "" {
		t.Errorf("the node is %+v", n)
	}
}
