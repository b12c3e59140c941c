package apply

import (
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// twoRacks has two nodes of rack r1, whose cleans take both places, and one of rack r2, whose clean is queued.
func twoRacks(t *testing.T) (w *world, other string) {
	w = newWorld(t)
	set := command.DefaultSettings()
	set.MaxClean = 2
	w.must(command.UpdateSettings{Settings: set})
	w.agent("r1", 1)
	other = w.must(command.OpenSession{
		Session: "other", Agent: "r2", Group: "other", Drivers: []string{"fake-hardware"}, Weight: 1, Journal: "j2", Incarnation: 1, Level: state.Level,
	}).Session
	for i := range 3 {
		w.must(createBodyOf(i, func(n *node.Node) {
			if i == 2 {
				n.Group = "other"
			}
		}))
		w.to(nodeID(i), "manage")
		w.must(w.verb(nodeID(i), "provide"))
	}
	if !w.flow(nodeID(2)).Queued() {
		t.Fatal("the third clean is not queued")
	}
	return w, other
}

// TestADeadRackKeptThePlacesOfAllOthers: flows that nobody can work on, and those that maintenance holds, do not count.
func TestADeadRackKeptThePlacesOfAllOthers(t *testing.T) {
	check := func(w *world) {
		t.Helper()
		if err := w.s.invariants(); err != nil {
			t.Error(err)
		}
	}
	w, other := twoRacks(t)
	w.must(command.CloseSession{Session: w.s.Agent("r1").Session, Reason: "power cut"})
	if w.flow(nodeID(2)).Queued() || w.s.jobs.AtWork(flow.LimitClean) != 1 {
		t.Fatalf("the other rack waits; %d cleans are counted", w.s.jobs.AtWork(flow.LimitClean))
	}
	check(w)
	w.run(nodeID(2))
	w.is(nodeID(2), "available")
	w.ticks(time.Second, other)
	w.agent("r1", 2)
	if w.s.jobs.AtWork(flow.LimitClean) != 2 {
		t.Errorf("%d cleans are counted after the rack is back", w.s.jobs.AtWork(flow.LimitClean))
	}
	check(w)
	for i := range 2 {
		w.run(nodeID(i))
		w.is(nodeID(i), "available")
	}
	if w.s.jobs.AtWork(flow.LimitClean) != 0 {
		t.Errorf("%d cleans are counted at rest", w.s.jobs.AtWork(flow.LimitClean))
	}

	w, _ = twoRacks(t)
	w.must(command.SetMaintenance{Node: nodeID(0), On: true, Reason: "fan"})
	if !w.flow(nodeID(2)).Queued() {
		t.Error("a step that is under way gave its place away")
	}
	w.must(w.done(nodeID(0))) // power off; maintenance holds what follows
	if w.flow(nodeID(2)).Queued() {
		t.Error("the other rack waits for the end of maintenance")
	}
	check(w)
	w.must(command.SetMaintenance{Node: nodeID(0)}) // and goes on at once, one over the limit
	if w.s.jobs.AtWork(flow.LimitClean) != 3 {
		t.Errorf("%d cleans are counted", w.s.jobs.AtWork(flow.LimitClean))
	}
	check(w)

	// The dead rack's own queue keeps its order, and nobody else's turn waits for it.
	w, _ = twoRacks(t)
	c := createBody(3)
	w.must(c)
	w.to(nodeID(3), "manage")
	w.must(w.verb(nodeID(3), "provide"))
	w.must(command.CloseSession{Session: w.s.Agent("r1").Session})
	if !w.flow(nodeID(3)).Queued() {
		t.Error("a flow that nobody can work on was admitted")
	}
	check(w)
	w.run(nodeID(2))
	w.agent("r1", 2)
	check(w)
	for _, i := range []int{0, 1, 3} {
		w.run(nodeID(i))
		w.is(nodeID(i), "available")
	}
}
