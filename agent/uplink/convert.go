package uplink

import (
	"time"

	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// ToRef is the wire's form of an attempt under a token.
func ToRef(r work.Ref, token uint64) *farrierv1.OrderRef {
	return &farrierv1.OrderRef{Node: r.Node, Flow: r.Flow, Step: r.Step, Attempt: r.Attempt, Token: token}
}

// FromRef is the attempt that the wire names.
func FromRef(r *farrierv1.OrderRef) work.Ref {
	return work.Ref{Node: r.GetNode(), Flow: r.GetFlow(), Step: r.GetStep(), Attempt: r.GetAttempt()}
}

func toOutcome(o work.Outcome) *farrierv1.StepOutcome {
	out := &farrierv1.StepOutcome{
		Ref: ToRef(o.Ref, o.Token), BootId: o.BootID, Ok: o.OK, Error: o.Error, Retryable: o.Retryable, Facts: o.Facts, Inventory: o.Inventory,
	}
	if !o.OK {
		out.ErrorKind = o.Kind.String()
	}
	return out
}

func fromOrder(p *farrierv1.Order) (work.Order, error) {
	o := work.Order{
		Ref: FromRef(p.GetRef()), Token: p.GetRef().GetToken(), Interface: p.GetInterface(), Name: p.GetStep(),
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

// FromAssign is the node that an assignment gives; now is boottime.
func FromAssign(a *farrierv1.Assign, now time.Duration) *task.Node {
	n := &task.Node{
		ID: a.GetNode(), Name: a.GetName(), Driver: a.GetDriver(), DriverInfo: a.GetDriverInfo(), Token: a.GetToken(),
		Epoch: a.GetEpoch(), PowerState: a.GetPowerState(), ProvisionState: a.GetProvisionState(),
		BMCSessions: a.GetBmcSessions(), Watch: task.ParseWatch(a.GetPowerWatch()),
	}
	for _, p := range a.GetPorts() {
		n.Ports = append(n.Ports, task.Port{Address: p.GetAddress(), IP: p.GetIp(), PXEEnabled: p.GetPxeEnabled()})
	}
	if b := a.GetBoot(); b.GetBootId() != "" {
		n.Boot = &task.Boot{
			ID: b.GetBootId(), Secret: b.GetSecret(), KeyHash: b.GetKeyHash(), Flow: b.GetFlow(), Ramdisk: b.GetRamdisk(),
			Expires: now + b.GetExpiresIn().AsDuration(), SystemUUID: b.GetSystemUuid(), Serial: b.GetSerial(),
		}
	}
	return n
}

// ToOrder is the wire's form of an order for a ramdisk.
func ToOrder(o work.Order) *farrierv1.Order {
	return &farrierv1.Order{
		Ref: ToRef(o.Ref, o.Token), Interface: o.Interface, Step: o.Name, Class: o.Class.String(), Executor: o.Executor.String(),
		Args: o.Args, SecretArgs: o.SecretArgs, BootId: o.BootID, Resumed: o.Resumed,
	}
}

// FromOutcome is the outcome that a ramdisk reported.
func FromOutcome(p *farrierv1.StepOutcome) work.Outcome {
	o := work.Outcome{
		Ref: FromRef(p.GetRef()), Token: p.GetRef().GetToken(), BootID: p.GetBootId(), OK: p.GetOk(), Error: p.GetError(),
		Retryable: p.GetRetryable(), Facts: p.GetFacts(), Inventory: p.GetInventory(),
	}
	if !o.OK {
		o.Kind = fault.ParseKind(p.GetErrorKind())
	}
	return o
}
