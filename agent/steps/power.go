package steps

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
)

// set is a step that brings the BMC to a wanted state.
type set struct {
	want string // for people: "power on"
	key  string // the fact that says what was read
	read func(ctx context.Context, c bmc.Client) (facts map[string]string, done bool, err error)
	do   func(ctx context.Context, c bmc.Client) error
}

// seen is what was read, for people.
func (s set) seen(facts map[string]string) string {
	if v := facts[s.key]; v != "" {
		return v
	}
	return "unknown"
}

// setStep is the set behind an order, if it is one.
func setStep(o work.Order) (set, bool) {
	switch o.Full() {
	case "power.power_on":
		return powerSet(bmc.PowerOn), true
	case "power.power_off":
		return powerSet(bmc.PowerOff), true
	case "management.set_boot_device":
		return bootSet(o.Args), true
	}
	return set{}, false
}

func powerSet(want bmc.PowerState) set {
	return set{
		want: want.String(), key: "power_state",
		read: func(ctx context.Context, c bmc.Client) (map[string]string, bool, error) {
			p, err := c.Power(ctx)
			if err != nil {
				return nil, false, err
			}
			return powerFacts(p), p == want, nil
		},
		do: func(ctx context.Context, c bmc.Client) error { return c.SetPower(ctx, want) },
	}
}

func powerFacts(p bmc.PowerState) map[string]string {
	return map[string]string{"power_state": p.String()}
}

func bootSet(args map[string]string) set {
	device, ok := bmc.ParseDevice(args["device"])
	persistent, err := strconv.ParseBool(args["persistent"])
	want := bmc.Boot{Device: device, Persistent: persistent && err == nil, Mode: bmc.ParseMode(args["boot_mode"])}
	changed := false // the client was asked, and has read back what the BMC is able to do: perhaps for the next boot only
	return set{
		want: "boot device " + device.String(), key: "boot_device",
		read: func(ctx context.Context, c bmc.Client) (map[string]string, bool, error) {
			if !ok {
				return nil, false, fault.New(fault.Invalid, "set boot device", "unknown device %q", args["device"]).
					WithDetail(&fault.FieldDetail{Field: "device"})
			}
			b, err := c.BootDevice(ctx)
			if err != nil {
				return nil, false, err
			}
			same := b.Device == want.Device && (b.Persistent == want.Persistent || want.Device == bmc.DeviceNone || changed && want.Persistent) &&
				(want.Mode == bmc.ModeDefault || b.Mode == bmc.ModeDefault || b.Mode == want.Mode)
			return map[string]string{"boot_device": b.Device.String(), "persistent": strconv.FormatBool(b.Persistent)}, same, nil
		},
		do: func(ctx context.Context, c bmc.Client) error {
			err := c.SetBootDevice(ctx, want)
			changed = err == nil
			return err
		},
	}
}

// errAskedOnce marks a shutdown that was asked for and has not come about: asking again by itself would push the power
// button of a machine that may have gone off meanwhile.
var errAskedOnce = errors.New("the operating system has not shut down") // read-only

// softOff asks the operating system to shut down, once, and waits until it has. It never takes the power away: that is
// power_off, and the user's to decide. Who had a resumed order before may have asked: it asks only after a while in which the
// machine stays on, because another push of the button could start a machine that has just gone off.
func (r *Runner) softOff(ctx context.Context, t Task) (map[string]string, error) {
	off, wait := powerSet(bmc.PowerOff), softTimeout(t.Order())
	var facts map[string]string
	var done, asked bool
	if t.Order().Resumed {
		first := min(softAsked, wait/2)
		facts, done, err := r.awaitOff(ctx, t, off, first)
		if err != nil || done {
			return facts, err
		}
		wait -= first
	}
	err := r.tries(ctx, t, func(ctx context.Context) error {
		return t.Turn(ctx, func(ctx context.Context, c bmc.Client, do Do) (err error) {
			if facts, done, err = read(ctx, off, c); err != nil || done {
				return err
			}
			err = do(ctx, changeDeadline(t), func(ctx context.Context) error {
				err := c.SoftOff(ctx)
				k := fault.KindOf(err)
				asked = err == nil || k == fault.UnknownOutcome || k == fault.Timeout
				return err
			})
			if asked { // what the request did is seen in the power state, whatever its answer was
				return nil
			}
			return err
		})
	})
	if err != nil || done {
		return facts, err
	}
	if facts, done, err = r.awaitOff(ctx, t, off, wait); err == nil && !done {
		err = fault.New(fault.Timeout, "shut down", "%w within %v", errAskedOnce, wait).
			WithHelp("look at the machine's console; to cut its power: farrier node power off")
	}
	return facts, err
}

// awaitOff reads the power state until it is off, for so long.
func (r *Runner) awaitOff(ctx context.Context, t Task, off set, wait time.Duration) (facts map[string]string, done bool, err error) {
	until := time.NewTimer(wait)
	defer until.Stop()
	poll := time.NewTicker(softPoll)
	defer poll.Stop()
	for !done {
		select {
		case <-until.C:
			return facts, false, nil
		case <-ctx.Done():
			return facts, false, fmt.Errorf("%w: %w", errAskedOnce, ctx.Err())
		case <-poll.C:
		}
		err := t.Turn(ctx, func(ctx context.Context, c bmc.Client, _ Do) error {
			seen, isOff, err := read(ctx, off, c)
			if err == nil {
				facts, done = seen, isOff
			}
			return err
		})
		if err != nil && ctx.Err() == nil && !work.Retryable(fault.KindOf(err)) {
			return facts, false, err
		}
	}
	return facts, true, nil
}

// softTimeout is how long the operating system may take.
func softTimeout(o work.Order) time.Duration {
	wait := DefaultSoft
	if d, err := time.ParseDuration(o.Args["soft_timeout"]); err == nil && d > 0 {
		wait = d
	}
	if d := o.Deadline; d > 0 {
		wait = min(wait, max(d-softMargin, d/2))
	}
	return wait
}

// verify reads what proves that the credentials work and which machine answers.
func (r *Runner) verify(ctx context.Context, t Task) (facts map[string]string, err error) {
	err = r.tries(ctx, t, func(ctx context.Context) error {
		return t.Turn(ctx, func(ctx context.Context, c bmc.Client, _ Do) error {
			p, err := c.Power(ctx)
			if err != nil {
				return err
			}
			id, err := c.Identity(ctx)
			if err != nil {
				return err
			}
			facts = id.Facts()
			facts["power_state"] = p.String()
			return nil
		})
	})
	return facts, err
}
