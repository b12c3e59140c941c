package job

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// job is one node in the hands of the command in work: copies of the node and of its open flow, which save
// writes back. At most one job per node exists at a time.
type job struct {
	s           *Jobs
	n           *node.Node
	f           *flow.Flow // the open flow; nil when there is none
	before      *node.Node
	copied      bool       // f is a copy
	sameVersion bool       // nothing but the lock changed: the version stays
	counted     flow.Limit // see recount
}

// of takes a node that exists.
func (s *Jobs) of(id node.ID) *job {
	n := s.Node(id)
	j := &job{s: s, n: n.Clone(), before: n}
	if n.FlowOpen {
		j.f = s.Flow(n.Flow)
	}
	j.counted = countedAs(j.n, j.f)
	return j
}

// take is of for a node that a command names.
func (s *Jobs) take(id node.ID, op string) (*job, error) {
	if s.Node(id) == nil {
		return nil, node.Missing(id, op)
	}
	return s.of(id), nil
}

// flow is the open flow, to change.
func (j *job) flow() *flow.Flow {
	if !j.copied {
		j.f, j.copied = j.f.Clone(), true
	}
	return j.f
}

// step is the step in work, to change.
func (j *job) step() *flow.Step { return j.flow().Step() }

// openStep is the step whose attempt is open, to change; nil when there is none.
func (j *job) openStep() *flow.Step {
	if j.f == nil || !j.f.Open() {
		return nil
	}
	if st := j.f.Step(); st == nil || !st.Attempt.Open {
		return nil
	}
	return j.step()
}

// end takes the flow on as far as it goes, and writes the job back.
func (j *job) end() {
	j.advance()
	j.save()
}

// save writes back what changed. The job is over: its node is shared from then on.
func (j *job) save() {
	j.clock()
	j.recount()
	if j.f != nil && j.copied {
		j.s.Flows.Put(&j.s.Log, j.f)
		j.copied = false
	}
	if sameNode(j.n, j.before) {
		return
	}
	if !j.sameVersion {
		j.n.Version++
		j.n.UpdatedAt = j.s.Header.At
	}
	j.s.ReplaceNode(j.before, j.n)
	j.before = j.n
}

// sameNode tells that a job left the node alone, as far as the fields that jobs change.
func sameNode(a, b *node.Node) bool {
	return a.Provision == b.Provision && a.TargetProvision == b.TargetProvision && a.Power == b.Power &&
		a.TargetPower == b.TargetPower && a.Maintenance == b.Maintenance && a.MaintenanceReason == b.MaintenanceReason &&
		a.Fault == b.Fault && a.LastError == b.LastError && a.Owner == b.Owner && a.PrevOwner == b.PrevOwner &&
		a.Epoch == b.Epoch && a.Lock == b.Lock && a.Token == b.Token && a.Flow == b.Flow && a.FlowOpen == b.FlowOpen &&
		a.Tenanted == b.Tenanted && a.Wipe == b.Wipe && a.WeakBoot == b.WeakBoot && a.BootMode == b.BootMode && sameInstance(&a.Instance, &b.Instance) && node.SameBody(a, b)
}

func sameInstance(a, b *node.Instance) bool {
	return a.UUID == b.UUID && a.Hostname == b.Hostname && a.ImageURL == b.ImageURL && a.ImageSHA == b.ImageSHA &&
		a.ImageFmt == b.ImageFmt && a.ImageDigest == b.ImageDigest && a.DiskID == b.DiskID &&
		string(a.UserData.Box) == string(b.UserData.Box) && string(a.NetworkData.Box) == string(b.NetworkData.Box)
}

// setState moves the provision state; only rows of the lifecycle table reach it.
func (j *job) setState(to, target lifecycle.State) {
	from := j.n.Provision
	j.n.Provision, j.n.TargetProvision = to, target
	if from == to {
		return
	}
	j.n.ProvisionUpdatedAt = j.s.Header.At
	j.s.Emit(state.EventNodeProvision, j.n, "from", from.String(), "to", to.String(), "target", target.String())
}

// event moves the state by an internal event. It panics when the table has no such row: the table and the
// templates disagree, and the command must not be half done.
func (j *job) event(e lifecycle.Event) {
	to, target, legal := lifecycle.NextEvent(j.n.Provision, e)
	if !legal {
		panic("job: event " + e.String() + " in state " + j.n.Provision.String())
	}
	j.setState(to, lifecycle.KeepTarget(to, j.n.TargetProvision, target))
}

// toWait and toWork move between the working and the waiting state of a flow that boots the ramdisk.
func (j *job) toWait() {
	if j.f.Kind.Boots() && j.n.Provision.Transient() {
		j.event(lifecycle.Wait)
	}
}

func (j *job) toWork() {
	if j.f.Kind.Boots() && j.n.Provision.Waiting() {
		j.event(lifecycle.Resume)
	}
}

// mint makes the next token.
func (s *Jobs) mint() lock.Token {
	s.Root.Cluster.Tokens++
	return lock.MakeToken(s.Root.Cluster.Generation, s.Root.Cluster.Tokens)
}

// quiet tells whether a lock is one that an agent takes for a moment, with no flow behind it. They come by the
// thousand and would wash everything else out of the window: neither their grant nor their release is an event.
// Their end by other means is.
func (s *Jobs) quiet(l *node.Lock) bool { return l.Flow == 0 && s.Session(l.Session) != nil }

// grant gives the node's lock, which is free or the flow's own, to a holder under a new token.
func (j *job) grant(l node.Lock) lock.Token {
	l.Token, l.Since = j.s.mint(), j.s.Header.At
	j.n.Lock, j.n.Token = l, l.Token
	if !j.s.quiet(&l) {
		j.s.Emit(state.EventLockGranted, j.n, "token", l.Token.String(), "holder", l.Holder, "task", l.Task, "purpose", l.Purpose, "flow", flowText(l.Flow))
	}
	return l.Token
}

// release frees the lock, if it is held.
func (j *job) release() {
	if l := j.n.Lock; l.Held() {
		j.s.Emit(state.EventLockReleased, j.n, "token", l.Token.String(), "holder", l.Holder)
		j.n.Lock = node.Lock{}
	}
}

// grantOwner gives the lock to the owner's session for a step of the open flow.
func (j *job) grantOwner(st *flow.Step) lock.Token {
	session := ""
	if a := j.s.Agent(j.n.Owner); a != nil {
		session = a.Session
	}
	return j.grant(node.Lock{
		Session: session, Holder: "agent " + j.n.Owner, Task: "flow " + flowText(j.f.ID),
		Purpose: j.f.Kind.String() + ": " + st.Name, Flow: j.f.ID,
	})
}

// stamp makes the token of a ramdisk step. It is no lock: whoever has that keeps it.
func (j *job) stamp() lock.Token {
	j.n.Token = j.s.mint()
	return j.n.Token
}

// regrant puts the open attempt, if there is one, under a new token for the node's owner. A changing BMC call of
// the earlier owner may still be on its way: the attempt is held back until it cannot be. Without an owner the
// flow's lock belongs to no session.
func (j *job) regrant(reason string) {
	st := j.openStep()
	if st == nil || st.Executor == step.Wait {
		return
	}
	if j.n.PrevOwner == "" {
		j.holdBack(st)
	}
	switch {
	case j.n.Owner == "":
		if j.n.Lock.Held() && j.n.Lock.Flow == j.f.ID {
			j.n.Lock.Session, j.n.Lock.Holder = "", ""
		}
		return
	case st.Executor == step.Ramdisk:
		st.Attempt.Token = j.stamp()
	default:
		st.Attempt.Token = j.grantOwner(st)
	}
	st.Attempt.Resumed = true
	st.Attempt.Deadline = 0 // its full time, from now: see clock
	j.stepEvent(st, state.StepRegrant, reason)
}

// holdBack keeps a new owner from acting before the earlier owner's last changing BMC call is over.
func (j *job) holdBack(st *flow.Step) {
	if changesBMC(st) {
		st.Attempt.NotBefore = max(st.Attempt.NotBefore, j.s.Root.Elapsed+max(st.Attempt.CallDeadline, j.s.Root.Settings.BMCChangeDeadline))
	}
	st.Attempt.Resumed = true
}

func changesBMC(st *flow.Step) bool { return st.Executor == step.BMC && st.Class != step.Read }

// earliest is when the next attempt of a step may start, 0 for at once: if it changes the BMC, after every call of the
// flow that may still be on its way.
func (j *job) earliest(st *flow.Step) time.Duration {
	at := st.Attempt.NotBefore
	if changesBMC(st) {
		at = max(at, heldUntil(j.f))
	}
	if at <= j.s.Root.Elapsed {
		return 0
	}
	return at
}

// heldUntil is until when an earlier owner's changing call may be on its way.
func heldUntil(f *flow.Flow) (at time.Duration) {
	for i := range f.Steps {
		if st := &f.Steps[i]; changesBMC(st) {
			at = max(at, st.Attempt.NotBefore)
		}
	}
	return at
}

// held tells that maintenance holds the flow: no further attempt opens until it ends, and callbacks have all the time.
func held(n *node.Node, f *flow.Flow) bool {
	return n.Maintenance && pauses(f.Kind) && !f.Failing() && !f.AbortRequested
}

// goesOn tells that nothing but the work itself takes the time of a flow's node: it has an owner who may act, and
// maintenance does not hold the flow.
func goesOn(n *node.Node, f *flow.Flow) bool {
	return n.Owner != "" && n.PrevOwner == "" && !held(n, f)
}

// clockRuns tells whether the time of the flow's open attempt counts. It does while somebody may act on it: not without an
// owner, nor before the owner before has let go. Maintenance stops the clock of callbacks, as in Ironic; a step of the
// BMC or of the agent that is under way ends in its own time.
func clockRuns(n *node.Node, f *flow.Flow) bool {
	switch f.Step().Executor {
	case step.Wait, step.Ramdisk:
		return goesOn(n, f)
	default:
		return n.Owner != "" && n.PrevOwner == ""
	}
}

// clock stops the clock of the open attempt, or starts it with the full time, as clockRuns says.
func (j *job) clock() {
	if j.f == nil || !j.f.Open() {
		return
	}
	st := j.f.Step()
	if st == nil || !st.Attempt.Open {
		return
	}
	switch runs := clockRuns(j.n, j.f); {
	case !runs && st.Attempt.Deadline != 0:
		j.step().Attempt.Deadline = 0
	case runs && st.Attempt.Deadline == 0:
		j.setDeadline(j.step())
	}
}

// Deadlines of steps that have no setting of their own.
const (
	softPowerDeadline  = 11 * time.Minute   // Ironic's soft_power_off_timeout is 600 s; then the step fails
	convergingDeadline = 7 * 24 * time.Hour // of a wipe (30 TB at 100 MB/s take 83 h) or an image write: silence ends it far earlier
	contactedBoot      = 48 * time.Hour     // of a boot attempt whose ramdisk made contact
)

// setDeadline gives the attempt its time. The boot attempt lasts for as long: the machine works under it.
func (j *job) setDeadline(st *flow.Step) {
	st.Attempt.Deadline = j.deadline(st)
	if st.Executor == step.Ramdisk {
		f := j.flow()
		f.Boot.Expires = max(f.Boot.Expires, st.Attempt.Deadline)
	}
}

// deadline is when the attempt of a step is over, counted from now.
func (j *job) deadline(st *flow.Step) time.Duration {
	set := &j.s.Root.Settings
	from := max(j.s.Root.Elapsed, st.Attempt.NotBefore)
	switch {
	case st.Executor == step.Ramdisk && st.Class == step.Converging,
		st.FullName() == flow.StepSelectDisk: // the agent fetches the image for it
		return from + convergingDeadline
	case st.Executor == step.Ramdisk, st.Executor == step.Wait:
		return from + callbackTimeout(j.f.Kind, set.DeployTimeout, set.CleanTimeout, set.InspectTimeout)
	case st.Name == "soft_power_off":
		return from + softPowerDeadline
	default:
		return from + set.StepDeadline
	}
}

func callbackTimeout(k flow.Kind, deploy, clean, inspect time.Duration) time.Duration {
	switch k {
	case flow.Clean:
		return clean
	case flow.Inspect:
		return inspect
	default:
		return deploy
	}
}

// stepEvent tells what became of a step.
func (j *job) stepEvent(st *flow.Step, what, why string) {
	j.s.Emit(state.EventFlowStep, j.n, "flow", flowText(j.f.ID), "kind", j.f.Kind.String(), "step", state.Num(j.f.Cur), "name", st.FullName(),
		"state", what, "attempt", state.Num(st.Attempt.N), "token", tokenText(st.Attempt.Token), "boot", st.Attempt.Boot, "error", why)
}

func tokenText(t lock.Token) string {
	if t == 0 {
		return ""
	}
	return t.String()
}

func flowText(f flow.ID) string {
	if f == 0 {
		return ""
	}
	return state.Num(f)
}

// freshBoot opens a boot attempt: its id is derived from the command's randomness.
func (j *job) freshBoot() {
	f := j.flow()
	f.Boots++
	sum := sha256.New()
	sum.Write(j.s.Header.Seed[:])
	sum.Write(binary.LittleEndian.AppendUint64(nil, uint64(f.ID)))
	sum.Write(binary.LittleEndian.AppendUint32(nil, f.Boots))
	f.Boot = flow.Boot{ID: hex.EncodeToString(sum.Sum(nil)[:16]), Expires: j.s.Root.Elapsed + j.s.Root.Settings.BootTTL}
}

// derivedUUID is a random UUID (RFC 9562, version 4) from the command's randomness.
func (s *Jobs) derivedUUID(label string) string {
	sum := sha256.New()
	sum.Write(s.Header.Seed[:])
	sum.Write([]byte(label))
	b := sum.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	t := hex.EncodeToString(b)
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}

// merged is a copy of a map with more in it.
func merged(a, b map[string]string) map[string]string {
	m := make(map[string]string, len(a)+len(b))
	maps.Copy(m, a)
	maps.Copy(m, b)
	return m
}
