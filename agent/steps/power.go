package steps

import (
	"context"
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
			same := b.Device == want.Device && (b.Persistent == want.Persistent || want.Device == bmc.DeviceNone) &&
				(want.Mode == bmc.ModeDefault || b.Mode == bmc.ModeDefault || b.Mode == want.Mode)
			return map[string]string{"boot_device": b.Device.String(), "persistent": strconv.FormatBool(b.Persistent)}, same, nil
		},
		do: func(ctx context.Context, c bmc.Client) error { return c.SetBootDevice(ctx, want) },
	}
}

// softOff asks the operating system first, and takes the power away when it has not shut down in time.
func (r *Runner) softOff(ctx context.Context, t Task) (map[string]string, error) {
	wait := DefaultSoft
	if d, err := time.ParseDuration(t.Order().Args["soft_timeout"]); err == nil && d > 0 {
		wait = d
	}
	if d := t.Order().Deadline; d > 0 {
		wait = min(wait, d/2) // the hard way needs time too
	}
	off := powerSet(bmc.PowerOff)
	var facts map[string]string
	var done bool
	err := r.tries(ctx, t, func(ctx context.Context) error {
		return t.Turn(ctx, func(ctx context.Context, c bmc.Client, do Do) (err error) {
			if facts, done, err = read(ctx, off, c); err != nil || done {
				return err
			}
			return do(ctx, changeDeadline(t), c.SoftOff)
		})
	})
	if done && err == nil {
		return facts, nil
	}
	if err != nil {
		r.Log.Info("soft power off not taken: going the hard way", "node", t.Order().Node, "err", err)
		return r.set(ctx, t, off)
	}
	until := time.NewTimer(wait)
	defer until.Stop()
	poll := time.NewTicker(softPoll)
	defer poll.Stop()
	for !done {
		select {
		case <-until.C:
			return r.set(ctx, t, off)
		case <-ctx.Done():
			return facts, ctx.Err()
		case <-poll.C:
			err := t.Turn(ctx, func(ctx context.Context, c bmc.Client, _ Do) (err error) {
				facts, done, err = read(ctx, off, c)
				return err
			})
			if err != nil && !work.Retryable(fault.KindOf(err)) {
				return facts, err
			}
		}
	}
	return facts, nil
}

// reboot is two sets. A resumed one starts over: nobody knows how far it came, and off is where it is safe.
func (r *Runner) reboot(ctx context.Context, t Task) (facts map[string]string, err error) {
	if t.Order().Name == "soft_reboot" {
		facts, err = r.softOff(ctx, t)
	} else {
		facts, err = r.set(ctx, t, powerSet(bmc.PowerOff))
	}
	if err != nil {
		return facts, err
	}
	return r.set(ctx, t, powerSet(bmc.PowerOn))
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
