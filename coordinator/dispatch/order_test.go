package dispatch

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
)

func confirmedOf(ref *farrierv1.OrderRef) func(*farrierv1.CoordinatorMessage) bool {
	return func(m *farrierv1.CoordinatorMessage) bool { return proto.Equal(m.GetConfirmed().GetRef(), ref) }
}

func TestAssignmentHasCredentials(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	got := a.assigned(id)
	if got.DriverInfo["redfish_password"] != "swordfish" || got.DriverInfo["redfish_username"] != "admin" {
		t.Errorf("driver_info is %v", got.DriverInfo)
	}
	if len(got.Ports) != 1 || got.Ports[0].Address != "52:54:00:00:00:01" || !got.Ports[0].PxeEnabled {
		t.Errorf("ports are %v", got.Ports)
	}
	if got.Epoch != r.get(id).Epoch || got.Boot != nil {
		t.Errorf("epoch %d, boot %v", got.Epoch, got.Boot)
	}
	if r.get(id).DriverInfo["redfish_password"] != "" {
		t.Error("the credential is in the state in clear")
	}
}

func TestChangedNodeIsAssignedAgain(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.assigned(id)
	n := *r.get(id)
	n.Name = "renamed"
	r.apply(command.UpdateNode{Node: n, Fields: []string{"name"}})
	if got := a.assigned(id); got.Name != "renamed" {
		t.Errorf("assigned as %q", got.Name)
	}
	r.apply(command.DeleteNode{Node: id})
	a.await("unassignment", func(m *farrierv1.CoordinatorMessage) bool { return m.GetUnassign().GetNode() == string(id) })
}

// A boot attempt comes with a secret that any leader derives again, before the order that serves it.
func TestBootAttemptComesBeforeItsOrder(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	a.finish(id, map[string]string{"power_state": "power off"})
	r.apply(command.Provision{Node: id, Verb: "inspect"})
	a.finish(id, map[string]string{"power_state": "power off"}) // power off
	var boot *farrierv1.BootAttempt
	a.await("boot.prepare", func(m *farrierv1.CoordinatorMessage) bool {
		if b := m.GetAssign().GetBoot(); b != nil {
			boot = b
		}
		return m.GetOrder().GetStep() == "prepare"
	})
	if boot == nil {
		t.Fatal("the order to prepare came before the boot attempt")
	}
	if len(boot.BootId) != 32 || len(boot.Secret) != 64 || boot.ExpiresIn.AsDuration() <= 0 {
		t.Errorf("boot attempt %v", boot)
	}
	if again := r.d.bootSecret(boot.BootId); again != boot.Secret {
		t.Error("the secret is not derived from the boot id")
	}
}

// finish does the node's open order.
func (a *agent) finish(id node.ID, facts map[string]string) *farrierv1.Order {
	a.t.Helper()
	o := a.order(id)
	a.send(outcomeOf(o.Ref, facts))
	a.await("confirmation", confirmedOf(o.Ref))
	return o
}

func TestOutcomeIsConfirmedAfterCommit(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	o := a.order(id)
	gate := make(chan struct{})
	r.model.setGate(gate)
	a.send(outcomeOf(o.Ref, map[string]string{"power_state": "power off"}))
	if n := r.get(id); n.Provision.String() != "verifying" {
		t.Fatalf("the node is %s before the commit", n.Provision)
	}
	select {
	case m := <-a.inbox:
		if m.GetConfirmed() != nil {
			t.Fatal("confirmed before the commit")
		}
	default:
	}
	close(gate)
	m := a.await("confirmation", confirmedOf(o.Ref))
	if m.GetConfirmed().Late {
		t.Error("the outcome of the open attempt is called late")
	}
	if n := r.get(id); n.Provision.String() != "manageable" {
		t.Errorf("the node is %s after the confirmation", n.Provision)
	}
	a.send(outcomeOf(o.Ref, nil)) // the confirmation was lost: the agent says it again
	if m := a.await("second confirmation", confirmedOf(o.Ref)); !m.GetConfirmed().Late {
		t.Error("the outcome of a closed attempt is not called late")
	}
}

func TestClosedAttemptIsCancelled(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	o := a.order(id)
	// The attempt ends by somebody else's report, as after a handover.
	r.apply(command.Outcome{Node: id, Flow: r.get(id).Flow, Step: int(o.Ref.Step), Attempt: o.Ref.Attempt, OK: true,
		Facts: map[string]string{"power_state": "power off"}, Agent: "b"})
	m := a.await("cancellation", func(m *farrierv1.CoordinatorMessage) bool { return m.GetCancel() != nil })
	if !proto.Equal(m.GetCancel().Ref, o.Ref) {
		t.Errorf("cancelled %v, ordered %v", m.GetCancel().Ref, o.Ref)
	}
}

func TestOrdersWaitForFreeWorkers(t *testing.T) {
	r := newRig(t)
	a := r.agent("a")
	a.hello.FreeWorkers = 2
	a.connect()
	const nodes = 6
	for i := range nodes {
		r.apply(command.Provision{Node: r.node(i), Verb: "manage"})
	}
	running := []*farrierv1.OrderRef{}
	for done := 0; done < nodes; done++ {
		for len(running) < min(2, nodes-done) {
			o := a.await("order", func(m *farrierv1.CoordinatorMessage) bool { return m.GetOrder() != nil }).GetOrder()
			running = append(running, o.Ref)
		}
		for _, m := range a.barrier() {
			if m.GetOrder() != nil {
				t.Fatalf("a third order for two workers, after %d were done", done)
			}
		}
		a.send(outcomeOf(running[0], map[string]string{"power_state": "power off"}))
		ended := running[0]
		running = running[1:]
		a.await("confirmation", func(m *farrierv1.CoordinatorMessage) bool {
			if o := m.GetOrder(); o != nil { // its worker is free before its outcome is committed
				running = append(running, o.Ref)
			}
			return confirmedOf(ended)(m)
		})
	}
	for i := range nodes {
		if n := r.get(nodeID(i)); n.Provision.String() != "manageable" {
			t.Errorf("node %d is %s", i, n.Provision)
		}
	}
}

func TestCapacityFreesTheBacklog(t *testing.T) {
	r := newRig(t)
	a := r.agent("a")
	a.hello.FreeWorkers = 0
	a.connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	a.assigned(id)
	for _, m := range a.barrier() {
		if m.GetOrder() != nil {
			t.Fatal("an order for an agent without a worker")
		}
	}
	a.send(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Capacity{Capacity: &farrierv1.Capacity{FreeWorkers: 1}}})
	a.order(id)
	if got := r.d.FreeWorkers("a"); got != 1 {
		t.Errorf("free workers: %d", got)
	}
}

func TestDrainHandsOverAfterTeardown(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.assigned(id)
	b := r.agent("b").connect()
	b.await("synced", func(m *farrierv1.CoordinatorMessage) bool { return m.GetSynced() != nil })
	r.apply(command.SetDrain{Agent: "a", On: true})
	u := a.await("unassignment", func(m *farrierv1.CoordinatorMessage) bool { return m.GetUnassign() != nil }).GetUnassign()
	r.apply(command.Provision{Node: id, Verb: "manage"})
	for _, m := range b.barrier() {
		if m.GetAssign() != nil || m.GetOrder() != nil {
			t.Fatalf("the new owner was told before the old one let go: %v", m)
		}
	}
	teardown := func(epoch uint64) *farrierv1.AgentMessage {
		return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_TeardownDone{TeardownDone: &farrierv1.TeardownDone{Node: u.Node, Epoch: epoch}}}
	}
	a.send(teardown(u.Epoch - 1)) // of an earlier handover
	a.barrier()
	if r.get(id).PrevOwner != "a" {
		t.Fatal("an old acknowledgement was taken")
	}
	a.send(teardown(u.Epoch))
	b.assigned(id)
	b.order(id)
}

func TestOtherGroupsReportsAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	o := a.order(id)
	x := r.agent("x")
	x.store = r.storeOf("x", "rack2")
	x.hello.Group = "rack2"
	x.connect()
	x.send(outcomeOf(o.Ref, nil), lockMessage(1, id, "t", nil))
	if m := x.await("confirmation", confirmedOf(o.Ref)); !m.GetConfirmed().Late {
		t.Error("the report of a stranger was taken")
	}
	if got := x.reply(1); got.Error.GetKind() != "denied" {
		t.Errorf("a stranger's lock request: %v", got)
	}
	if n := r.get(id); n.Provision.String() != "verifying" {
		t.Errorf("the node is %s", n.Provision)
	}
}

func TestOversizedOutcomeFailsTheStep(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	o := a.order(id)
	facts := map[string]string{}
	for i := range 1000 {
		facts[fmt.Sprint("fact", i)] = "x"
	}
	a.send(outcomeOf(o.Ref, facts))
	if m := a.await("confirmation", confirmedOf(o.Ref)); m.GetConfirmed().Late {
		t.Error("the outcome was refused: the step would run for ever")
	}
	if n := r.get(id); n.FlowOpen || n.LastError == "" {
		t.Errorf("the flow is open: %v, last error %q", n.FlowOpen, n.LastError)
	}
}

func TestProgressIsMemory(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	r.apply(command.Provision{Node: id, Verb: "manage"})
	o := a.order(id)
	before := r.model.View().Index()
	a.send(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Progress{Progress: &farrierv1.StepProgress{
		Ref: o.Ref, Progress: &farrierv1.Progress{Done: 5, Total: 10}}}},
		&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Heartbeats{Heartbeats: &farrierv1.HeartbeatSummary{Beats: 7}}})
	a.barrier()
	f, step, p, ok := r.d.Progress(id)
	if !ok || uint64(f) != o.Ref.Flow || step != int(o.Ref.Step) || p.Done != 5 {
		t.Errorf("progress: flow %d, step %d, %v, %v", f, step, p, ok)
	}
	if got := r.d.Stats(); got.Beats != 7 || got.Streams != 1 {
		t.Errorf("stats: %+v", got)
	}
	// The barrier's release is the only entry.
	if got := r.model.View().Index(); got > before {
		t.Errorf("progress and heartbeats made %d entries", got-before)
	}
	a.send(outcomeOf(o.Ref, map[string]string{"power_state": "power off"}))
	a.await("confirmation", confirmedOf(o.Ref))
	r.until(func() bool { // the progress goes with its flow
		_, _, _, ok := r.d.Progress(id)
		return !ok
	})
}
