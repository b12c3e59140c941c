package job

import (
	"slices"
	"strconv"
	"strings"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// Faults of a node, as in Ironic, and our own for a ramdisk key that is not the one that claimed the boot.
const (
	FaultClean     = "clean failure"
	FaultBootClaim = "boot claim"
)

func (j *job) abortText() string {
	if j.f.DeleteAfter {
		return "aborted by a tear down that " + j.f.AbortBy + " asked for"
	}
	return "aborted by " + j.f.AbortBy
}

// fail ends the flow's steps with "<kind>: <interface.step>: <cause>" and tries to leave the machine off and out of the
// ramdisk. A tear down that follows does that itself.
func (j *job) fail(cause string) {
	f := j.flow()
	where := ""
	if st := f.Step(); st != nil && !f.Queued() {
		where = st.FullName() + ": "
	}
	booted := slices.ContainsFunc(f.Steps, func(st flow.Step) bool { return st.FullName() == flow.StepPrepare && st.Attempt.N > 0 })
	j.skipRest(cause)
	f.Error = f.Kind.String() + ": " + where + state.Clip(cause, 1024)
	if f.Kind.Boots() && booted && !f.DeleteAfter && j.n.Owner != "" {
		f.Steps = append(f.Steps, flow.Cleanup()...)
		return
	}
	j.finish()
}

// skipRest closes the open attempt and leaves out the steps that are not over.
func (j *job) skipRest(cause string) {
	f := j.flow()
	if st := f.Step(); st != nil && st.Attempt.Open {
		st.Attempt.Open, st.Status, st.EndedAt = false, flow.Aborted, j.s.Header.At
		j.stepEvent(st, state.StepAborted, cause)
	}
	for i := range f.Steps {
		if st := &f.Steps[i]; !st.Over() {
			st.Status = flow.Skipped
		}
	}
	f.Cur = len(f.Steps)
}

// abandon closes a flow where it stands, cleanup included: somebody asked for its end, and nobody is left who could work
// towards one. What the dead owner may still be doing holds the node's next flow back.
func (j *job) abandon() {
	if !j.f.Failing() {
		j.fail(j.abortText()) // without an owner there is no cleanup
		return
	}
	j.skipRest(j.abortText())
	j.finish()
}

// finish closes the flow and moves the node on.
func (j *job) finish() {
	f := j.flow()
	switch {
	case f.Error == "":
		if f.Error = j.unverified(); f.Error != "" {
			f.Status = flow.Failed
		} else {
			f.Status = flow.Done
		}
	case f.AbortRequested:
		f.Status = flow.Aborted
	default:
		f.Status = flow.Failed
	}
	f.Cur, f.Phase = max(0, min(f.Cur, len(f.Steps)-1)), max(f.Phase, 1)
	f.Boot, f.EndedAt = flow.Boot{}, j.s.Header.At
	j.n.FlowOpen = false
	j.recount()
	if j.n.Lock.Held() && j.n.Lock.Flow == f.ID {
		j.release()
	}
	j.s.Emit(state.EventFlowClosed, j.n, "flow", flowText(f.ID), "kind", f.Kind.String(), "status", f.Status.String(), "error", f.Error)
	if f.Status == flow.Done {
		j.succeeded(f)
	} else {
		j.failed(f)
	}
}

// unverified is why a deploy may not end in active: the image that was written has to be the one asked for.
func (j *job) unverified() string {
	f := j.f
	if f.Kind != flow.Deploy && f.Kind != flow.Rebuild {
		return ""
	}
	if got := f.Facts[flow.FactDigest]; !strings.EqualFold(got, j.n.Instance.ImageSHA) || got == "" {
		return f.Kind.String() + ": write_image: the image on the disk was not verified: digest " + strconv.Quote(got)
	}
	return ""
}

func (j *job) succeeded(f *flow.Flow) {
	n := j.n
	switch f.Kind {
	case flow.Verify, flow.Inspect:
		j.event(lifecycle.Done)
	case flow.Deploy, flow.Rebuild:
		n.Instance.ImageDigest, n.Instance.DiskID = f.Facts[flow.FactDigest], f.Facts[flow.FactDisk]
		j.event(lifecycle.Done)
	case flow.Undeploy:
		n.Instance = node.Instance{}
		j.event(lifecycle.CleanEvent)
		j.closed()
		j.clean(f.Verb, f.Actor)
		return
	case flow.Clean:
		j.recordWipe(f)
		j.afterClean(f.Manual)
	case flow.Power:
		n.TargetPower = ""
	}
	j.closed()
}

// closed writes the closed flow back, so that another may open.
func (j *job) closed() {
	j.s.Flows.Put(&j.s.Log, j.f)
	j.f, j.copied = nil, false
}

// afterClean moves a cleaned node to available, or to manageable: after a manual clean, when it is retired, or
// when nothing shows that a tenant's data is gone.
func (j *job) afterClean(manual bool) {
	switch n := j.n; {
	case manual || n.Retired:
		j.event(lifecycle.ManageEvent)
	case n.Tenanted && n.Wipe == nil:
		j.event(lifecycle.ManageEvent)
		n.LastError = "clean: no wipe since the last tenancy: turn automated clean on, or record a waiver"
	default:
		j.event(lifecycle.Done)
	}
}

func (j *job) failed(f *flow.Flow) {
	n := j.n
	n.LastError, n.TargetPower = f.Error, ""
	if f.Kind != flow.Power {
		j.event(lifecycle.Fail)
	}
	if f.Kind == flow.Clean && f.Status == flow.Failed && ranErase(f) {
		j.maintain(true, f.Error, FaultClean)
	}
	j.closed()
	if f.DeleteAfter {
		to, target, legal := lifecycle.NextVerb(n.Provision, lifecycle.Delete)
		if !legal {
			panic("job: no tear down after an abort in state " + n.Provision.String())
		}
		j.setState(to, target)
		j.openFlow(flow.Undeploy, lifecycle.Delete.String(), f.AbortBy, nil)
	}
}

// ranErase tells whether the disks may be half erased: then the node needs a look before it is used.
func ranErase(f *flow.Flow) bool {
	return slices.ContainsFunc(f.Steps, func(st flow.Step) bool { return st.Executor == step.Ramdisk && st.Attempt.N > 0 })
}

// maintain sets or clears maintenance, with its reason and fault. A person and the system may both have set it: neither takes
// away what the other said. The system's reason is in the node's last error too.
func (j *job) maintain(on bool, reason, fault string) {
	n := j.n
	switch {
	case !on:
		reason, fault = "", ""
	case !n.Maintenance:
	case fault == "":
		fault = n.Fault
	case n.Fault == "":
		reason = n.MaintenanceReason
	}
	j.putMaintenance(on, reason, fault)
}

func (j *job) putMaintenance(on bool, reason, fault string) {
	n := j.n
	if n.Maintenance == on && n.MaintenanceReason == reason && n.Fault == fault {
		return
	}
	n.Maintenance, n.MaintenanceReason, n.Fault = on, reason, fault
	j.s.Emit(state.EventMaintenance, n, "on", strconv.FormatBool(on), "reason", reason, "fault", fault)
}
