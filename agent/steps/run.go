package steps

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
)

// Do carries out one effect within a turn: the right to act, the intent and the call's deadline are its business.
type Do = func(ctx context.Context, deadline time.Duration, effect func(context.Context) error) error

// Task is what a step acts through. It is satisfied by *task.Exclusive.
type Task interface {
	Order() work.Order
	Driver() string
	// Turn gives fn the BMC to itself. Effects go through do.
	Turn(ctx context.Context, fn func(ctx context.Context, c bmc.Client, do Do) error) error
}

// Boots is what this agent serves to booting machines.
type Boots interface {
	// Prepare makes sure that the boot attempt is served, to the machine that the BMC says it controls. Repeating it is
	// harmless. weak: the attempt's secret crosses the segment in clear.
	Prepare(ctx context.Context, node, bootID string, machine bmc.Identity) (weak bool, err error)
	// Teardown ends what is served to the node. Repeating it is harmless.
	Teardown(ctx context.Context, node, bootID string) error
}

// Checker tells whether a node's hardware type offers the step.
type Checker interface {
	Check(driver string, o work.Order) error
}

// The defaults of a Runner.
const (
	DefaultTries      = 3
	DefaultChange     = 10 * time.Second // one changing BMC call
	DefaultSoft       = 10 * time.Minute // for the operating system to shut down, as Ironic's soft_power_off_timeout
	softMargin        = 30 * time.Second // of the attempt's deadline, that is left for the calls
	softPoll          = time.Second
	softAsked         = time.Minute      // in which a machine that was asked before goes off, mostly
	DefaultReadBefore = 30 * time.Second // one reading BMC call
)

// Runner runs steps. It is safe for concurrent use.
type Runner struct {
	Checker Checker
	Boots   Boots
	Log     *slog.Logger
	Tries   int           // default DefaultTries
	Backoff retry.Backoff // between tries; default 200 ms to 2 s
}

// Run runs the task's order to its outcome. It does not return before the step has ended or ctx has.
func (r *Runner) Run(ctx context.Context, t Task) work.Outcome {
	o := t.Order()
	if err := r.Checker.Check(t.Driver(), o); err != nil {
		return work.Failed(o, err)
	}
	facts, err := r.dispatch(ctx, t, o)
	if err != nil {
		out := work.Failed(o, explain(ctx, err))
		out.Facts = facts
		out.Retryable = out.Retryable && !errors.Is(err, errAskedOnce)
		return out
	}
	return work.Done(o, facts)
}

func (r *Runner) dispatch(ctx context.Context, t Task, o work.Order) (map[string]string, error) {
	if s, ok := setStep(o); ok {
		return r.set(ctx, t, s)
	}
	switch o.Full() {
	case "power.soft_power_off":
		return r.softOff(ctx, t)
	case "management.verify":
		return r.verify(ctx, t)
	case "boot.prepare":
		return r.prepare(ctx, t, o)
	case "boot.teardown":
		return nil, r.Boots.Teardown(ctx, o.Node, o.BootID)
	}
	return nil, fault.New(fault.Unsupported, o.Full(), "this agent does not know the step")
}

func (r *Runner) prepare(ctx context.Context, t Task, o work.Order) (map[string]string, error) {
	var machine bmc.Identity
	err := r.tries(ctx, t, func(ctx context.Context) error {
		return t.Turn(ctx, func(ctx context.Context, c bmc.Client, _ Do) (err error) {
			ctx, cancel := context.WithTimeoutCause(ctx, DefaultReadBefore, fault.New(fault.Timeout, "read", "the BMC did not answer within %v", DefaultReadBefore))
			defer cancel()
			machine, err = c.Identity(ctx)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	weak, err := r.Boots.Prepare(ctx, o.Node, o.BootID, machine)
	if err != nil {
		return nil, err
	}
	facts := map[string]string{"weak_boot": strconv.FormatBool(weak)} // and for who may go on: which machine is to boot
	for _, of := range [...]string{"system_uuid", "serial"} {
		if said := machine.Facts()[of]; said != "" {
			facts[of] = said
		}
	}
	return facts, nil
}

// set brings the world to what s wants.
func (r *Runner) set(ctx context.Context, t Task, s set) (facts map[string]string, err error) {
	err = r.tries(ctx, t, func(ctx context.Context) error {
		return t.Turn(ctx, func(ctx context.Context, c bmc.Client, do Do) error {
			var done bool
			if facts, done, err = read(ctx, s, c); err != nil || done {
				return err
			}
			if err := do(ctx, changeDeadline(t), func(ctx context.Context) error { return s.do(ctx, c) }); err != nil {
				return err
			}
			if facts, done, err = read(ctx, s, c); err != nil || done {
				return err
			}
			return fault.New(fault.Timeout, "read back", "the BMC accepted %s and still reads %s", s.want, s.seen(facts))
		})
	})
	return facts, err
}

func read(ctx context.Context, s set, c bmc.Client) (map[string]string, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, DefaultReadBefore, fault.New(fault.Timeout, "read", "the BMC did not answer within %v", DefaultReadBefore))
	defer cancel()
	return s.read(ctx, c)
}

func changeDeadline(t Task) time.Duration {
	if d := t.Order().CallDeadline; d > 0 {
		return d
	}
	return DefaultChange
}

// tries calls fn until it succeeds, fails for good, or has failed as often as it may.
func (r *Runner) tries(ctx context.Context, t Task, fn func(context.Context) error) error {
	n, backoff := r.Tries, r.Backoff
	if n <= 0 {
		n = DefaultTries
	}
	if backoff.Base == 0 {
		backoff.Base = 200 * time.Millisecond
	}
	for failures := 1; ; failures++ {
		err := fn(ctx)
		if err == nil || ctx.Err() != nil || failures >= n || !work.Retryable(fault.KindOf(err)) {
			return err
		}
		o := t.Order()
		r.Log.Info("step will be tried again", "node", o.Node, "step", o.Full(), "token", o.Token, "failures", failures, "err", err)
		if backoff.Sleep(ctx, failures) != nil {
			return err
		}
	}
}

// explain makes an error of the context say what passed: the deadline's own words, and what failed under it.
func explain(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	var typed *fault.Error
	switch {
	case cause == nil:
		return err
	case errors.Is(err, cause):
		return err
	case errors.As(cause, &typed):
		return fault.New(typed.Kind, "", "%w: %w", cause, err)
	default:
		return fault.New(fault.Timeout, "", "%w: %w", cause, err)
	}
}
