package job

import (
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// pauses tells whether maintenance holds flows of a kind: as in Ironic it blocks deploys and cleans, not tear
// downs, power, verify or inspection.
func pauses(k flow.Kind) bool { return k == flow.Deploy || k == flow.Rebuild || k == flow.Clean }

// ready tells whether nothing stands in the way of the flow's next attempt: it is admitted, no attempt is open,
// maintenance does not hold it, nobody else has the lock, and the node has an owner.
func ready(n *node.Node, f *flow.Flow) bool {
	if !f.Open() || f.Queued() || n.Owner == "" {
		return false
	}
	if st := f.Step(); st != nil && st.Attempt.Open {
		return false
	}
	if held(n, f) {
		return false
	}
	return !n.Lock.Held() || n.Lock.Flow == f.ID
}

// Resumable tells whether an open flow has no open attempt although nothing stands in its way.
func Resumable(v *state.View, f *flow.Flow) bool {
	n, ok := v.Node(node.ID(f.Node))
	return ok && n.Flow == f.ID && ready(n, f)
}

// advance opens the flow's next attempt if nothing stands in its way, and closes the flow when no step is left.
// It is called whenever something that may have stood in the way is gone; calling it once more does nothing.
func (j *job) advance() {
	j.freshen()
	for j.f != nil && j.f.Open() {
		if j.f.AbortRequested && j.n.Orphaned() {
			j.abandon()
			continue
		}
		if j.f.AbortRequested && !j.f.Failing() && j.openStep() == nil {
			j.fail(j.abortText())
			continue
		}
		if !ready(j.n, j.f) {
			j.rest()
			return
		}
		f := j.flow()
		if f.Cur = nextStep(f); f.Cur == len(f.Steps) {
			j.finish()
			continue
		}
		st := j.step()
		if st.Executor == step.Wait && f.Boot.Contact {
			j.contacted(st)
			continue
		}
		if st.Executor == step.Ramdisk && f.Boot.SilentAt != 0 {
			j.reboot("the ramdisk fell silent")
			continue
		}
		j.open(st)
		return
	}
}

// rest frees the flow's lock while no attempt is open: a lock is held only while somebody acts.
func (j *job) rest() {
	if j.openStep() == nil && j.n.Lock.Held() && j.n.Lock.Flow == j.f.ID {
		j.release()
	}
}

// nextStep is the first step that is not over.
func nextStep(f *flow.Flow) int {
	for i := range f.Steps {
		if !f.Steps[i].Over() {
			return i
		}
	}
	return len(f.Steps)
}

// open opens an attempt of the step in work: the committed intent that dispatch carries to the owner. A ramdisk
// step runs under a token of its own in the waiting state, with the lock free; the wait for first contact has no
// token, because nobody acts.
func (j *job) open(st *flow.Step) {
	last := st.Attempt
	st.Attempt = flow.Attempt{N: last.N + 1, Open: true, Resumed: last.N > 0, NotBefore: j.earliest(st)}
	if changesBMC(st) { // a call of the attempt before may still be on its way
		st.Attempt.CallDeadline = max(last.CallDeadline, j.s.Root.Settings.BMCChangeDeadline)
	}
	st.Status, st.Error = flow.Running, ""
	st.Tries++
	if st.StartedAt.IsZero() {
		st.StartedAt = j.s.Header.At
	}
	j.bind(st)
	switch st.Executor {
	case step.Wait:
		j.toWait()
		j.release()
		st.Attempt.Boot = j.f.Boot.ID
	case step.Ramdisk:
		j.toWait()
		j.release()
		st.Attempt.Token = j.stamp()
		st.Attempt.Boot = j.f.Boot.ID
	default:
		j.toWork()
		st.Attempt.Token = j.hold(st)
	}
	j.stepEvent(st, state.StepOpened, "")
}

// hold is the token for a step of the BMC or the agent: the flow's lock if it has it, else a grant.
func (j *job) hold(st *flow.Step) lock.Token {
	if j.n.Lock.Held() {
		j.n.Lock.Purpose = j.f.Kind.String() + ": " + st.Name
		return j.n.Lock.Token
	}
	return j.grantOwner(st)
}

// bind settles what a step needs to know from the steps before it.
func (j *job) bind(st *flow.Step) {
	switch st.FullName() {
	case flow.StepPrepare:
		if st.Tries == 1 {
			j.freshBoot()
		}
		st.Attempt.Boot = j.f.Boot.ID
	case flow.StepWriteImage:
		st.Args = merged(st.Args, map[string]string{flow.FactDisk: j.f.Facts[flow.FactDisk]})
		j.tenant(j.f.Facts[flow.FactDisk])
	case flow.StepConfigDrive:
		st.Args = merged(st.Args, map[string]string{flow.FactDisk: j.f.Facts[flow.FactDisk]})
	}
}

// contacted ends the wait for the ramdisk and, the first time, commits the second phase.
func (j *job) contacted(st *flow.Step) {
	st.Attempt.Open = false
	st.Status, st.EndedAt = flow.Done, j.s.Header.At
	f := j.flow()
	f.Boot.Expires = j.s.Root.Elapsed + contactedBoot
	if f.Phase == 1 {
		f.Phase = 2
		if !f.Manual { // the user's steps were committed when the flow opened
			steps, err := flow.Phase2(j.s.specOf(j.n, f.Kind))
			if err != nil {
				panic("job: phase two of a flow that was opened: " + err.Error())
			}
			f.Steps = append(f.Steps, steps...)
		}
	}
	j.stepEvent(f.Step(), state.StepDone, "")
}

// freshen starts the boot anew when the work goes on after it could not (in maintenance, without an agent, in a handover) and
// less than half of the boot attempt's time is left: the machine may have given up asking, or not have been started yet.
// It is nobody's failure and does not count.
func (j *job) freshen() {
	if j.f == nil || !j.f.Open() || goesOn(j.before, j.f) || !goesOn(j.n, j.f) {
		return
	}
	b := &j.f.Boot
	if b.ID == "" || b.Contact || b.Expires-j.s.Root.Elapsed >= j.s.Root.Settings.BootTTL/2 {
		return
	}
	j.flow().Boots--
	j.reboot("the boot attempt ran out while nobody could work")
}

// reboot starts the machine into a fresh ramdisk: the boot is repeated from the start, steps that the ramdisk has
// done stay done, and settings of the BMC are made again. After Settings.BootTries the flow fails.
func (j *job) reboot(why string) {
	f := j.flow()
	if st := j.openStep(); st != nil {
		st.Attempt.Open, st.Status, st.Error = false, flow.Pending, why
		j.stepEvent(st, state.StepReboot, why)
	}
	f.Boot = flow.Boot{}
	if st := f.Step(); st != nil && st.Class == step.OneShot && !st.Over() && st.Attempt.N > 0 {
		j.fail(why + " in a step that must not be repeated blindly: look at the machine before you ask for it again")
		return
	}
	if f.Boots >= j.s.Root.Settings.BootTries {
		j.fail(why)
		return
	}
	for i := range f.Steps {
		if st := &f.Steps[i]; st.Executor != step.Ramdisk && st.Class != step.OneShot || !st.Over() {
			st.Status, st.Tries = flow.Pending, 0
		}
	}
	f.Cur = nextStep(f)
}
