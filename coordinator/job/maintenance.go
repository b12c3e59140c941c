package job

import (
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// setMaintenance sets or clears maintenance, without the lock. It pauses deploys and cleans at the end of the
// running step; when it is cleared they go on.
func (s *Jobs) setMaintenance(c command.SetMaintenance) command.Result {
	j, err := s.take(c.Node, "set maintenance")
	if err != nil {
		return refuse(err)
	}
	j.maintain(c.On, state.Clip(c.Reason, 1024), c.Fault)
	j.end()
	return command.Result{Node: c.Node, Version: j.n.Version}
}

// waiveWipe records that the node may become available without a wipe since its last tenancy.
func (s *Jobs) waiveWipe(c command.WaiveWipe) command.Result {
	const op = "waive wipe"
	j, err := s.take(c.Node, op)
	if err != nil {
		return refuse(err)
	}
	n := j.n
	switch n.Provision {
	case lifecycle.Enroll, lifecycle.Manageable, lifecycle.Available, lifecycle.CleanFailed, lifecycle.InspectFailed,
		lifecycle.AdoptFailed, lifecycle.Error:
	default:
		return refuse(fault.New(fault.IllegalState, op, "node %s is %s: its tenancy is not over", n.Label(), n.Provision).
			WithHelp("undeploy it first").WithDetail(n.StateDetail()))
	}
	if n.Lock.Held() {
		return refuse(n.Locked(op))
	}
	if strings.TrimSpace(c.Reason) == "" {
		return refuse(fault.New(fault.Invalid, op, "a waiver needs a reason").WithDetail(&fault.FieldDetail{Field: "reason"}))
	}
	j.setWipe(&node.Wipe{Method: node.WipeWaiver, Who: s.Header.Actor, Reason: state.Clip(c.Reason, 1024), At: s.Header.At})
	j.save()
	return command.Result{Node: c.Node, Version: j.n.Version}
}
