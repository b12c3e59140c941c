package dispatch

import (
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
)

// TestPowerThatAnAgentSaw: the assignment says what to do about a node's power and what is known of it; a reading that is no news
// is no log entry; one that is comes back as an assignment.
func TestPowerThatAnAgentSaw(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	if got := a.assigned(id); got.PowerWatch != "" {
		t.Errorf("in enroll the power is watched: %q", got.PowerWatch)
	}
	r.apply(command.Provision{Node: id, Verb: "manage"})
	a.finish(id, map[string]string{"power_state": "power off"})
	watched := func(watch, power string) *farrierv1.Assign {
		t.Helper()
		return a.await("assignment", func(m *farrierv1.CoordinatorMessage) bool {
			as := m.GetAssign()
			return as.GetNode() == string(id) && as.PowerWatch == watch && as.PowerState == power
		}).GetAssign()
	}
	epoch := watched("read", "power off").Epoch
	saw := func(epoch uint64, power, why string) {
		a.send(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_PowerSeen{PowerSeen: &farrierv1.PowerSeen{
			Node: string(id), Epoch: epoch, PowerState: power, Error: why,
		}}})
	}
	before := r.model.View().Index()
	saw(epoch, "power off", "")
	saw(epoch-1, "power on", "")
	a.barrier()
	if after := r.model.View().Index(); after != before {
		t.Errorf("what changes nothing made %d log entries", after-before)
	}
	saw(epoch, "power on", "")
	watched("read", "power on")
	saw(epoch, "", "no answer")
	watched("recover", "")
	if n := r.get(id); n.Fault != node.FaultPower || n.LastError != "power failure: no answer" {
		t.Errorf("fault %q, last error %q", n.Fault, n.LastError)
	}
	saw(epoch, "power on", "")
	watched("read", "power on")
	r.apply(command.SetMaintenance{Node: id, On: true, Reason: "fan"})
	watched("", "power on")
}
