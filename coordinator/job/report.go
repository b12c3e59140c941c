package job

import (
	"strconv"
	"strings"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// reported finds the job of a report that names an open attempt. A report of anything else is late: it is
// recorded and changes nothing. The token is not asked for: tokens guard orders, never facts. The boot is, of every
// step: an attempt that is no ramdisk's has none, so that no ramdisk can report it.
func (s *Jobs) reported(id node.ID, f flow.ID, i int, attempt uint32, boot string) *job {
	n := s.Node(id)
	if n == nil || !n.FlowOpen || n.Flow != f {
		return nil
	}
	open := s.Flow(f)
	if open.Cur != i {
		return nil
	}
	st := open.Step()
	if st == nil || !st.Attempt.Open || st.Attempt.N != attempt || st.Attempt.Boot != boot {
		return nil
	}
	return s.of(id)
}

func (s *Jobs) outcome(c command.Outcome) command.Result {
	if err := checkFacts(&c); err != nil {
		return refuse(err)
	}
	j := s.reported(c.Node, c.Flow, c.Step, c.Attempt, c.Boot)
	if j == nil || j.f.Step().Executor == step.Wait {
		s.Emit(state.EventFlowLate, s.Node(c.Node), "flow", flowText(c.Flow), "step", state.Num(max(c.Step, 0)), "attempt", state.Num(c.Attempt), "ok", strconv.FormatBool(c.OK), "agent", c.Agent)
		return command.Result{Node: c.Node, Flow: c.Flow, Flags: command.FlagLate}
	}
	st := j.step()
	st.Attempt.Open, st.Attempt.NotBefore = false, 0 // the call is over, whoever made it
	// What a ramdisk says of the power it has not seen.
	if p := node.ParsePower(c.Facts[flow.FactPower]); p != node.PowerUnknown && st.Executor == step.BMC {
		j.setPower(p)
		if j.n.Fault == node.FaultPower {
			j.powerFound()
		}
	}
	switch {
	case c.OK:
		if cause := j.absorb(st, &c); cause != "" {
			j.stepFailed(st, cause, false)
		} else {
			st.Status, st.EndedAt = flow.Done, s.Header.At
			j.stepEvent(st, state.StepDone, "")
		}
	default:
		j.stepFailed(st, cause(&c), c.Retryable)
	}
	j.end()
	return command.Result{Node: c.Node, Flow: c.Flow}
}

func cause(c *command.Outcome) string {
	text := c.Error
	if text == "" {
		text = "failed without a reason"
	}
	if c.ErrorKind != "" && !strings.Contains(text, c.ErrorKind) {
		text += " (" + c.ErrorKind + ")"
	}
	return state.Clip(text, 1024)
}

func checkFacts(c *command.Outcome) error {
	size := 0
	for k, v := range c.Facts { // order does not matter: a sum
		size += len(k) + len(v)
	}
	if len(c.Facts) > state.MaxFacts || size > state.MaxFactBytes || len(c.Inventory) > state.MaxInventory {
		return fault.New(fault.TooLarge, "report outcome", "%d facts of %d bytes and an inventory of %d bytes are over the bounds of %d, %d and %d",
			len(c.Facts), size, len(c.Inventory), state.MaxFacts, state.MaxFactBytes, state.MaxInventory)
	}
	return nil
}

// setPower takes a reading; more is what else its event says.
func (j *job) setPower(p node.Power, more ...string) {
	if j.n.Power == p {
		return
	}
	j.s.Emit(state.EventNodePower, j.n, append([]string{"from", j.n.Power.String(), "to", p.String()}, more...)...)
	j.n.Power = p
}

// absorb takes what a done step found. It returns why the step has failed after all, or "".
func (j *job) absorb(st *flow.Step, c *command.Outcome) (cause string) {
	if len(c.Facts) > 0 {
		st.Facts = c.Facts
	}
	f := j.flow()
	switch st.FullName() {
	case flow.StepInventory:
		if len(c.Inventory) > 0 {
			j.s.Inventories.Put(&j.s.Log, &state.Inventory{Node: j.n.ID, At: j.s.Header.At, Data: c.Inventory})
		}
		j.inspected(c.Facts)
	case flow.StepPrepare:
		if weak, said := c.Facts[flow.FactWeakBoot]; said {
			j.n.WeakBoot = weak == "true"
		}
	case flow.StepVerify:
		if vendor := c.Facts["manufacturer"]; vendor != "" && j.n.Properties["vendor"] == "" {
			j.n.Properties = merged(j.n.Properties, map[string]string{"vendor": vendor})
		}
	case flow.StepSelectDisk:
		if cause := j.refusedDisk(c.Facts[flow.FactDisk]); cause != "" {
			return cause
		}
		f.Facts = merged(f.Facts, map[string]string{flow.FactDisk: c.Facts[flow.FactDisk]})
	case flow.StepWriteImage:
		got := c.Facts[flow.FactDigest]
		if got == "" || !strings.EqualFold(got, j.n.Instance.ImageSHA) {
			return "the image that was written has digest " + state.Clip(got, 80) + ", not " + j.n.Instance.ImageSHA
		}
		f.Facts = merged(f.Facts, map[string]string{flow.FactDigest: strings.ToLower(got)})
	case flow.StepErase, flow.StepEraseMeta:
		return j.unerased(c.Facts)
	}
	return ""
}

// inspected takes the properties that Ironic's inspection sets, as far as they were found.
func (j *job) inspected(facts map[string]string) {
	found := map[string]string{}
	for _, name := range [...]string{"cpus", "cpu_arch", "memory_mb", "local_gb"} {
		if v := facts[name]; v != "" {
			found[name] = v
		}
	}
	if len(found) > 0 {
		j.n.Properties = merged(j.n.Properties, found)
	}
	if mode := facts["boot_mode"]; mode == "bios" || mode == "uefi" {
		j.n.BootMode = mode
	}
}

// stepFailed decides what follows a failed attempt: another attempt, the next cleanup step, or the flow's
// failure. The attempt is closed.
func (j *job) stepFailed(st *flow.Step, cause string, retryable bool) {
	if retryable && st.Class == step.OneShot {
		cause += ": it is not known whether it took effect, and it must not be repeated blindly: look at the machine before you ask for it again"
	}
	st.Error, st.EndedAt = cause, j.s.Header.At
	again := retryable && st.Tries < j.tries(st) && !j.f.AbortRequested
	switch {
	case again:
		st.Status, st.Attempt.NotBefore = flow.Pending, j.s.Root.Elapsed+pause(st.Tries)
		j.stepEvent(st, state.StepRetry, cause)
	case st.Cleanup:
		st.Status = flow.Skipped
		j.stepEvent(st, state.StepSkipped, cause)
	case j.f.AbortRequested:
		st.Status = flow.Aborted
		j.stepEvent(st, state.StepAborted, cause)
	default:
		st.Status = flow.Failed
		j.stepEvent(st, state.StepFailed, cause)
		j.fail(cause)
	}
}

// tries is how often a step may be attempted whose failures may pass: by its class, and by what its failure costs. Where
// the flow's work would have to be done again, or a tear down ends in error, it is given the time that a BMC needs to
// restart.
func (j *job) tries(st *flow.Step) uint32 {
	most := j.s.Root.Settings.StepTries
	switch {
	case st.Class == step.OneShot:
		return 1
	case st.Class == step.Onceish:
		return min(most, 2)
	case st.Cleanup, j.f.Kind == flow.Verify, j.f.Kind == flow.Power:
		return most
	default:
		return 2 * most
	}
}

// pauses of elapsed before the second attempt of a step and those after it; the last holds for all that follow. With the
// default of step_tries, six attempts where the work is dear take some two and a half minutes, three take six seconds.
var pausesBetween = [...]time.Duration{time.Second, 5 * time.Second, 20 * time.Second, time.Minute} // read-only

// pause is how long the next attempt waits after so many.
func pause(tries uint32) time.Duration {
	return pausesBetween[min(max(int(tries), 1), len(pausesBetween))-1]
}

// timeout closes an attempt whose deadline has passed by replicated time.
func (s *Jobs) timeout(c command.Timeout) command.Result {
	late := command.Result{Node: c.Node, Flow: c.Flow, Flags: command.FlagLate}
	n := s.Node(c.Node)
	if n == nil || !n.FlowOpen || n.Flow != c.Flow || s.Flow(c.Flow).Cur != c.Step {
		return late
	}
	now := s.Flow(c.Flow).Step()
	if now == nil || !now.Attempt.Open || now.Attempt.N != c.Attempt || now.Attempt.Deadline != c.Deadline ||
		c.Deadline == 0 || c.Deadline > s.Root.Elapsed {
		return late
	}
	j := s.of(c.Node)
	st := j.step()
	if st.Executor == step.Wait {
		j.fail("the machine did not call back in time; its console and the agent's log (each DHCP, TFTP and HTTP request) say how far it came")
	} else {
		st.Attempt.Open = false
		j.stepFailed(st, "timed out", true)
	}
	j.end()
	return command.Result{Node: c.Node, Flow: c.Flow}
}

// resume takes an open flow on, if nothing stands in its way.
func (s *Jobs) resume(c command.Resume) command.Result {
	n := s.Node(c.Node)
	if n == nil || !n.FlowOpen || n.Flow != c.Flow || !ready(n, s.Flow(c.Flow)) {
		return command.Result{Node: c.Node, Flow: c.Flow, Flags: command.FlagLate}
	}
	j := s.of(c.Node)
	j.end()
	return command.Result{Node: c.Node, Flow: c.Flow}
}

// edge takes what the rack saw happen to a machine.
func (s *Jobs) edge(c command.Edge) command.Result {
	late := command.Result{Node: c.Node, Flow: c.Flow, Flags: command.FlagLate}
	n := s.Node(c.Node)
	if n == nil || !n.FlowOpen || c.Flow != 0 && n.Flow != c.Flow {
		return late
	}
	f := s.Flow(n.Flow)
	if f.Boot.ID == "" || f.Boot.ID != c.Boot {
		return late
	}
	j := s.of(c.Node)
	if !j.saw(&c) {
		return late
	}
	j.end()
	return command.Result{Node: c.Node, Flow: f.ID}
}

// saw takes an edge of the open boot attempt; false means that it changes nothing.
func (j *job) saw(c *command.Edge) bool {
	f := j.f
	kind := c.Kind
	if kind == "first_contact" && f.Boot.KeyHash != "" && f.Boot.KeyHash != c.KeyHash {
		kind = "second_claim"
	}
	switch kind {
	case "first_contact":
		if f.Boot.Contact {
			return false
		}
		f = j.flow()
		f.Boot.Contact, f.Boot.KeyHash, f.Boot.SilentAt = true, c.KeyHash, 0
		j.edgeEvent(c, kind)
		if st := j.openStep(); st != nil && st.Executor == step.Wait {
			j.contacted(st)
		}
	case "silent":
		if !f.Boot.Contact || f.Boot.SilentAt != 0 {
			return false
		}
		j.flow().Boot.SilentAt = j.s.Root.Elapsed
		j.edgeEvent(c, kind)
		if st := j.openStep(); st != nil && st.Executor == step.Ramdisk {
			j.reboot("the ramdisk fell silent")
		}
	case "heard":
		if f.Boot.SilentAt == 0 {
			return false
		}
		j.flow().Boot.SilentAt = 0
		j.edgeEvent(c, kind)
	case "unexpected_boot":
		st := j.openStep()
		if st == nil || st.Executor != step.Ramdisk {
			return false
		}
		j.edgeEvent(c, kind)
		j.reboot("the machine started anew by itself")
	case "wrong_machine":
		if f.Boot.Contact || f.Failing() {
			return false
		}
		j.edgeEvent(c, kind)
		j.fail(state.Clip(c.Detail, 1024))
	case "second_claim":
		j.edgeEvent(c, kind)
		j.flow().Boot = flow.Boot{}
		j.maintain(true, "two ramdisks claimed one boot attempt: "+state.Clip(c.Detail, 256), FaultBootClaim)
		if !f.Failing() {
			j.fail("two ramdisks claimed one boot attempt")
		}
	default:
		return false
	}
	return true
}

func (j *job) edgeEvent(c *command.Edge, kind string) {
	j.s.Emit(state.EventFlowEdge, j.n, "flow", flowText(j.f.ID), "kind", kind, "boot", c.Boot, "agent", c.Agent, "detail", state.Clip(c.Detail, 256))
}
