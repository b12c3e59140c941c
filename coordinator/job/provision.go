package job

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// provision does a user's verb: it moves the state, opens the flow and grants the lock in one entry. Abort, and a
// tear down while a flow runs, set a flag in the flow and need no lock.
func (s *Jobs) provision(c command.Provision) command.Result {
	j, err := s.take(c.Node, "set provision state")
	if err != nil {
		return refuse(err)
	}
	verb, known := lifecycle.ParseVerb(c.Verb)
	if !known {
		return refuse(fault.New(fault.Invalid, "set provision state", "there is no verb %q", state.Clip(c.Verb, 64)).WithDetail(&fault.FieldDetail{Field: "verb"}))
	}
	switch {
	case verb == lifecycle.Abort:
		err = j.abort()
	case verb == lifecycle.Delete && j.f != nil && (j.f.Kind == flow.Deploy || j.f.Kind == flow.Rebuild):
		err = j.deleteDuring()
	default:
		err = j.begin(verb, &c)
	}
	if err != nil {
		return refuse(err)
	}
	j.end()
	res := command.Result{Node: c.Node, Token: j.n.Lock.Token, Version: j.n.Version}
	if j.n.FlowOpen {
		res.Flow = j.n.Flow
	}
	return res
}

// begin moves the state by a verb and opens its flow.
func (j *job) begin(verb lifecycle.Verb, c *command.Provision) error {
	n := j.n
	if n.Lock.Held() {
		return n.Locked("set provision state")
	}
	to, target, legal := lifecycle.NextVerb(n.Provision, verb)
	if !legal || n.FlowOpen {
		return j.illegal(verb.String())
	}
	if err := j.mayBegin(verb, to); err != nil {
		return err
	}
	if err := j.prepare(verb, c); err != nil {
		return err
	}
	if verb == lifecycle.Clean {
		target = lifecycle.Manageable
	}
	n.LastError = ""
	if n.Provision == lifecycle.Error && verb == lifecycle.Manage {
		n.Instance = node.Instance{} // the tear down that failed would have
	}
	j.setState(to, target)
	switch verb {
	case lifecycle.Manage:
		if to != lifecycle.Verifying {
			return nil
		}
		return j.openFlow(flow.Verify, verb.String(), j.s.Header.Actor, nil)
	case lifecycle.Inspect:
		return j.openFlow(flow.Inspect, verb.String(), j.s.Header.Actor, nil)
	case lifecycle.Provide:
		return j.clean(verb.String(), j.s.Header.Actor)
	case lifecycle.Clean:
		return j.openFlow(flow.Clean, verb.String(), j.s.Header.Actor, c.CleanSteps)
	case lifecycle.Deploy:
		return j.openFlow(flow.Deploy, verb.String(), j.s.Header.Actor, nil)
	case lifecycle.Rebuild:
		return j.openFlow(flow.Rebuild, verb.String(), j.s.Header.Actor, nil)
	case lifecycle.Delete:
		return j.openFlow(flow.Undeploy, verb.String(), j.s.Header.Actor, nil)
	default:
		return fault.New(fault.Unsupported, "set provision state", "this version has no steps for %s", verb)
	}
}

// mayBegin refuses what maintenance, protection, retirement or the lack of an agent forbids (IRONIC: what each
// condition blocks).
func (j *job) mayBegin(verb lifecycle.Verb, to lifecycle.State) error {
	const op = "set provision state"
	n := j.n
	switch verb {
	case lifecycle.Manage, lifecycle.Provide, lifecycle.Inspect, lifecycle.Clean, lifecycle.Deploy, lifecycle.Rebuild, lifecycle.Delete:
	default:
		return fault.New(fault.Unsupported, op, "this version has no steps for %s", verb)
	}
	blocked := verb == lifecycle.Deploy || verb == lifecycle.Rebuild || verb == lifecycle.Clean
	switch {
	case n.Maintenance && blocked:
		return fault.New(fault.IllegalState, op, "node %s is in maintenance: %s", n.Label(), n.MaintenanceReason).
			WithHelp("farrier node maintenance unset %s", n.Label())
	case n.Protected && (verb == lifecycle.Rebuild || verb == lifecycle.Delete):
		return fault.New(fault.IllegalState, op, "node %s is protected: %s", n.Label(), n.ProtectedReason).
			WithHelp("farrier node set %s --protected=false", n.Label())
	case n.Retired && verb == lifecycle.Provide:
		return fault.New(fault.IllegalState, op, "node %s is retired", n.Label()).WithHelp("farrier node set %s --retired=false", n.Label())
	case verb == lifecycle.Provide && !j.automatedClean() && n.Tenanted && n.Wipe == nil:
		return fault.New(fault.IllegalState, op, "a tenant's data may be on the disks of node %s, and automated clean is off", n.Label()).
			WithHelp("turn automated clean on, clean it by hand, or record a waiver")
	case n.Owner == "" && (to != lifecycle.Manageable):
		return noAgent(n, op)
	}
	return nil
}

func noAgent(n *node.Node, op string) error {
	return fault.New(fault.NoAgent, op, "no live agent of group %q has hardware type %q", n.Group, n.Driver).
		WithHelp("farrier agent list; start an agent of that group, or change the node's group")
}

// prepare checks and stores what a deploy is to put on the node.
func (j *job) prepare(verb lifecycle.Verb, c *command.Provision) error {
	if verb != lifecycle.Deploy && verb != lifecycle.Rebuild {
		return nil
	}
	next := j.n.Instance
	if c.Instance != nil {
		next = *c.Instance
		if next.ImageURL == "" && verb == lifecycle.Rebuild {
			old := j.n.Instance
			next.ImageURL, next.ImageSHA, next.ImageFmt = old.ImageURL, old.ImageSHA, old.ImageFmt
		}
	}
	if j.n.Instance.UUID != "" { // also of a deploy that failed: others know the instance by it
		next.UUID = j.n.Instance.UUID
	}
	if next.UUID == "" {
		next.UUID = j.s.derivedUUID("instance of " + string(j.n.ID))
	}
	next.ImageDigest, next.DiskID = "", ""
	if next.ImageURL == "" || len(next.ImageSHA) != 64 {
		return fault.New(fault.Invalid, "set provision state", "a deploy needs an image with its SHA-256").WithDetail(&fault.FieldDetail{Field: "deploy.image"})
	}
	j.n.Instance = next
	return nil
}

// automatedClean tells whether the node is cleaned on its way to available.
func (j *job) automatedClean() bool {
	if j.n.AutomatedClean != nil {
		return *j.n.AutomatedClean
	}
	return j.s.Root.Settings.AutomatedClean
}

// clean starts the automated clean of a node that is in cleaning, or ends cleaning at once when there is none.
func (j *job) clean(verb, actor string) error {
	if !j.automatedClean() {
		j.afterClean(false)
		return nil
	}
	return j.openFlow(flow.Clean, verb, actor, nil)
}

// openFlow opens a flow; advance opens its first attempt. The earlier flow of the node is forgotten.
func (j *job) openFlow(kind flow.Kind, verb, actor string, manual []command.CleanStep) error {
	spec := j.s.specOf(j.n, kind)
	if kind == flow.Power {
		spec.Target = verb
	}
	for _, st := range manual {
		spec.Manual = append(spec.Manual, flow.CleanStep{Interface: st.Interface, Name: st.Step, Args: st.Args})
	}
	steps, err := flow.Phase1(spec)
	if err != nil {
		return err
	}
	f := &flow.Flow{Node: string(j.n.ID), Kind: kind, Verb: verb, Status: flow.Running, Steps: steps, Actor: actor, StartedAt: j.s.Header.At}
	if spec.Manual != nil {
		f.Manual = true
		second, err := flow.Phase2(spec)
		if err != nil {
			return err
		}
		f.Steps = append(f.Steps, second...)
	}
	j.s.enterLimit(f)
	j.s.Root.LastFlow++
	f.ID = flow.ID(j.s.Root.LastFlow)
	if j.n.Flow != 0 {
		j.carryHold(f, j.s.Flow(j.n.Flow))
		j.s.Flows.Drop(&j.s.Log, j.n.Flow)
	}
	j.f, j.copied = f, true
	j.n.Flow, j.n.FlowOpen = f.ID, true
	j.recount()
	j.s.Emit(state.EventFlowOpened, j.n, "flow", flowText(f.ID), "kind", kind.String(), "verb", verb, "queued", strconv.FormatBool(f.Queued()))
	return nil
}

// carryHold holds the next flow's first change of the BMC back as the last one's would have been: that was abandoned with a
// call of the dead owner on its way.
func (j *job) carryHold(next, last *flow.Flow) {
	at := heldUntil(last)
	if at <= j.s.Root.Elapsed {
		return
	}
	for i := range next.Steps {
		if st := &next.Steps[i]; changesBMC(st) {
			st.Attempt.NotBefore = at
			return
		}
	}
}

// specOf is what a flow's steps depend on, as the node and the settings are now.
func (s *Jobs) specOf(n *node.Node, kind flow.Kind) flow.Spec {
	return flow.Spec{
		Kind: kind, Erase: s.Root.Settings.Erase, Hints: n.Instance.RootDeviceHints,
		ImageURL: n.Instance.ImageURL, ImageSHA: n.Instance.ImageSHA, ImageFormat: n.Instance.ImageFmt,
		Drive: len(n.Instance.UserData.Box) > 0 || len(n.Instance.NetworkData.Box) > 0 || len(n.Instance.MetaData) > 0,
	}
}

// abort asks the open flow to end: at once when it waits, its step is abortable or nobody is there to work on it, else at
// the step's end. A power verb, which moves no state, can always be aborted.
func (j *job) abort() error {
	if j.f == nil {
		to, target, legal := lifecycle.NextVerb(j.n.Provision, lifecycle.Abort)
		if !legal || to.Transient() || j.n.Lock.Held() {
			return j.illegal(lifecycle.Abort.String())
		}
		j.setState(to, target)
		return nil
	}
	if _, _, legal := lifecycle.NextVerb(j.n.Provision, lifecycle.Abort); !legal && j.f.Kind != flow.Power {
		return j.illegal(lifecycle.Abort.String())
	}
	j.requestAbort(false)
	return nil
}

// deleteDuring is the tear down of a node that is being deployed: abort, then tear down.
func (j *job) deleteDuring() error {
	n := j.n
	if _, _, legal := lifecycle.NextVerb(n.Provision, lifecycle.Delete); !legal {
		return j.illegal(lifecycle.Delete.String())
	}
	if n.Protected {
		return fault.New(fault.IllegalState, "set provision state", "node %s is protected: %s", n.Label(), n.ProtectedReason).
			WithHelp("farrier node set %s --protected=false", n.Label())
	}
	j.requestAbort(true)
	return nil
}

func (j *job) requestAbort(tearDown bool) {
	f := j.flow()
	if f.AbortRequested && (f.DeleteAfter || !tearDown) {
		return
	}
	f.AbortRequested, f.AbortBy, f.DeleteAfter = true, j.s.Header.Actor, tearDown
	j.s.Emit(state.EventFlowAbort, j.n, "flow", flowText(f.ID), "by", f.AbortBy, "delete", strconv.FormatBool(tearDown))
	if st := j.openStep(); st != nil && !f.Failing() && (st.Abortable || st.Attempt.NotBefore > j.s.Root.Elapsed) {
		j.fail(j.abortText())
	}
}

// setPowerState is a user's power verb.
func (s *Jobs) setPowerState(c command.SetPower) command.Result {
	const op = "set power state"
	j, err := s.take(c.Node, op)
	if err != nil {
		return refuse(err)
	}
	n := j.n
	switch {
	case n.Lock.Held():
		return refuse(n.Locked(op))
	case n.FlowOpen || !n.Provision.PowerAllowed():
		return refuse(fault.New(fault.IllegalState, op, "node %s is %s: work on it is under way", n.Label(), n.Provision).
			WithHelp("wait for it to end, or abort it: farrier node abort %s", n.Label()).WithDetail(n.StateDetail()))
	case n.Owner == "":
		return refuse(noAgent(n, op))
	}
	n.LastError = ""
	if err := j.openFlow(flow.Power, c.Target, s.Header.Actor, nil); err != nil {
		return refuse(err)
	}
	n.TargetPower = powerTarget(c.Target)
	j.end()
	return command.Result{Node: c.Node, Flow: j.n.Flow, Token: j.n.Lock.Token, Version: j.n.Version}
}

// powerTarget is what target_power_state shows while a power verb is in work, as in Ironic.
func powerTarget(verb string) string {
	switch verb {
	case "soft power off", "power off":
		return "power off"
	default:
		return "power on"
	}
}

func (j *job) illegal(verb string) error {
	d := j.n.StateDetail()
	help := "wait for the work to end"
	if len(d.LegalVerbs) > 0 {
		help = "legal now: " + strings.Join(d.LegalVerbs, ", ")
	}
	why := fmt.Sprintf("node %s is %s", j.n.Label(), j.n.Provision)
	if j.f != nil {
		why += fmt.Sprintf(", and flow %d (%s) is open", j.f.ID, j.f.Kind)
	}
	return fault.New(fault.IllegalState, "set provision state", "%s: %s is illegal", why, verb).WithHelp("%s", help).WithDetail(d)
}
