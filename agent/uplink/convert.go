package uplink

import (
	"time"

	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

func toRef(r work.Ref, token uint64) *farrierv1.OrderRef {
	return &farrierv1.OrderRef{Node: r.Node, Flow: r.Flow, Step: r.Step, Attempt: r.Attempt, Token: token}
}

func fromRef(r *farrierv1.OrderRef) work.Ref {
	return work.Ref{Node: r.GetNode(), Flow: r.GetFlow(), Step: r.GetStep(), Attempt: r.GetAttempt()}
}

func toOutcome(o work.Outcome) *farrierv1.StepOutcome {
	out := &farrierv1.StepOutcome{
		Ref: toRef(o.Ref, o.Token), BootId: o.BootID, Ok: o.OK, Error: o.Error, Retryable: o.Retryable, Facts: o.Facts, Inventory: o.Inventory,
	}
	if !o.OK {
		out.ErrorKind = o.Kind.String()
	}
	return out
}

func fromOrder(p *farrierv1.Order) (work.Order, error) {
	o := work.Order{
		Ref: fromRef(p.GetRef()), Token: p.GetRef().GetToken(), Interface: p.GetInterface(), Name: p.GetStep(),
		Args: p.GetArgs(), SecretArgs: p.GetSecretArgs(), Deadline: p.GetDeadline().AsDuration(),
		CallDeadline: p.GetCallDeadline().AsDuration(), BootID: p.GetBootId(), Resumed: p.GetResumed(),
	}
	var known bool
	if o.Class, known = step.ParseClass(p.GetClass()); !known {
		return o, fault.New(fault.Unsupported, "take order", "unknown class %q of step %s", p.GetClass(), o.Full())
	}
	if o.Executor, known = step.ParseExecutor(p.GetExecutor()); !known {
		return o, fault.New(fault.Unsupported, "take order", "unknown executor %q of step %s", p.GetExecutor(), o.Full())
	}
	return o, nil
}

func fromAssign(a *farrierv1.Assign, now time.Duration) *task.Node {
	n := &task.Node{
		ID: a.GetNode(), Name: a.GetName(), Driver: a.GetDriver(), DriverInfo: a.GetDriverInfo(), Token: a.GetToken(),
		Epoch: a.GetEpoch(), PowerState: a.GetPowerState(), ProvisionState: a.GetProvisionState(), Properties: a.GetProperties(),
	}
	for _, p := range a.GetPorts() {
		n.Ports = append(n.Ports, task.Port{Address: p.GetAddress(), IP: p.GetIp(), PXEEnabled: p.GetPxeEnabled()})
	}
	if b := a.GetBoot(); b.GetBootId() != "" {
		n.Boot = &task.Boot{
			ID: b.GetBootId(), Secret: b.GetSecret(), KeyHash: b.GetKeyHash(), Flow: b.GetFlow(), Ramdisk: b.GetRamdisk(),
			Expires: now + b.GetExpiresIn().AsDuration(),
		}
	}
	return n
}
