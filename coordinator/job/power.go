package job

import (
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// powerSeen takes what a node's owner saw of its power while nothing was ordered. What is, is adopted: nothing here has a
// machine switched. A BMC that does not answer time after time puts its node into maintenance, and the first answer ends that.
// What is no news when it is applied changes nothing: it is seen again.
func (s *Jobs) powerSeen(c command.PowerSeen) command.Result {
	n := s.Node(c.Node)
	if n == nil || !n.PowerIsNews(c.Agent, c.Epoch, c.Power) {
		return command.Result{Node: c.Node, Flags: command.FlagLate}
	}
	j := s.of(c.Node)
	if c.Power == node.PowerUnknown {
		j.powerLost(c.Error)
	} else if n.Fault == node.FaultPower {
		j.powerFound()
	}
	if !n.FlowOpen {
		j.setPower(c.Power, "seen", "true")
	}
	j.end()
	return command.Result{Node: c.Node, Version: j.n.Version}
}

// powerLostBecause begins the reason of the maintenance that powerLost sets: what begins otherwise is a person's.
const powerLostBecause = node.FaultPower + ": "

func (j *job) powerLost(cause string) {
	j.n.LastError = powerLostBecause + state.Clip(cause, 1000)
	j.maintain(true, j.n.LastError, node.FaultPower)
}

// powerFound ends the maintenance that powerLost set. Where a person has said since why the node is in maintenance, only the
// fault is over.
func (j *job) powerFound() {
	n := j.n
	if strings.HasPrefix(n.LastError, powerLostBecause) {
		n.LastError = ""
	}
	if strings.HasPrefix(n.MaintenanceReason, powerLostBecause) {
		j.maintain(false, "", "")
	} else {
		j.putMaintenance(true, n.MaintenanceReason, "")
	}
}
