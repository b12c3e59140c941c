package redfish

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

// brief system: what polling reads, without the 24 kB that gofish makes of a whole system.
type systemState struct {
	PowerState schemas.PowerState
	Boot       struct {
		Target  schemas.BootSource                `json:"BootSourceOverrideTarget"`
		Enabled schemas.BootSourceOverrideEnabled `json:"BootSourceOverrideEnabled"`
		Mode    schemas.BootSourceOverrideMode    `json:"BootSourceOverrideMode"`
	}
}

func (c *Client) state(api *gofish.APIClient) (systemState, error) {
	var s systemState
	path, err := c.systemPath(api)
	if err != nil {
		return s, err
	}
	return s, get(api, path, &s)
}

func (s systemState) power() bmc.PowerState {
	switch s.PowerState {
	case schemas.OnPowerState, schemas.PausedPowerState:
		return bmc.PowerOn
	case schemas.OffPowerState:
		return bmc.PowerOff
	default:
		return bmc.PowerUnknown
	}
}

// Power implements bmc.Power.
func (c *Client) Power(ctx context.Context) (p bmc.PowerState, err error) {
	err = c.call(ctx, "read power state", false, func(ctx context.Context, api *gofish.APIClient) error {
		s, err := c.state(api)
		p = s.power()
		return err
	})
	return p, err
}

// SetPower implements bmc.Power.
func (c *Client) SetPower(ctx context.Context, want bmc.PowerState) error {
	types := []schemas.ResetType{schemas.OnResetType, schemas.ForceOnResetType}
	if want == bmc.PowerOff {
		types = []schemas.ResetType{schemas.ForceOffResetType}
	} else if want != bmc.PowerOn {
		return fault.New(fault.Invalid, "set power", "no such state")
	}
	return c.call(ctx, "set "+want.String(), true, func(ctx context.Context, api *gofish.APIClient) error {
		s, err := c.state(api)
		if err != nil || s.power() == want {
			return err
		}
		// A service may fail the request and carry it out all the same, or be asked what is so already
		// (iDRAC answers 409): the state decides.
		sent := c.reset(api, types...)
		return c.untilState(ctx, api, sent, func(s systemState) bool { return s.power() == want },
			func(s systemState) string { return string(s.PowerState) })
	})
}

// untilState reads until ok, the deadline, or, after a change that was refused, the second look.
func (c *Client) untilState(ctx context.Context, api *gofish.APIClient, sent error, ok func(systemState) bool, show func(systemState) string) error {
	pause, last := c.poll, ""
	for look := 1; ; look++ {
		s, err := c.state(api)
		if err == nil && ok(s) {
			return nil
		}
		if sent != nil && look >= 2 {
			return sent
		}
		if err == nil {
			last = show(s)
		} else if st := statusOf(err); st == 401 {
			return err
		}
		if sleep(ctx, pause) != nil {
			break
		}
		pause = min(2*pause, time.Second)
	}
	if sent != nil {
		return sent
	}
	return fault.New(fault.Timeout, "read back", "the BMC accepted the change and still says %q", last).
		WithHelp("look at the BMC's event log; the change may need longer than its deadline")
}

// reset sends the first of the reset types that the service allows.
func (c *Client) reset(api *gofish.APIClient, types ...schemas.ResetType) error {
	sys, err := c.fullSystem(api)
	if err != nil {
		return err
	}
	use := types[0]
	if allowed, err := sys.GetSupportedResetTypes(); err == nil && len(allowed) > 0 {
		i := slices.IndexFunc(types, func(t schemas.ResetType) bool { return slices.Contains(allowed, t) })
		if i < 0 {
			return fault.New(fault.Unsupported, "reset", "the BMC offers none of %v", types)
		}
		use = types[i]
	}
	_, err = sys.Reset(use)
	c.sent = c.sent || statusOf(err) != http.StatusUnauthorized
	return err
}

// SoftOff implements bmc.Power.
func (c *Client) SoftOff(ctx context.Context) error {
	return c.call(ctx, "ask for shutdown", true, func(ctx context.Context, api *gofish.APIClient) error {
		s, err := c.state(api)
		if err != nil || s.power() == bmc.PowerOff {
			return err
		}
		return c.reset(api, schemas.GracefulShutdownResetType, schemas.PushPowerButtonResetType)
	})
}

// Reset implements bmc.Power.
func (c *Client) Reset(ctx context.Context) error {
	return c.call(ctx, "reset", true, func(ctx context.Context, api *gofish.APIClient) error {
		return c.reset(api, schemas.ForceRestartResetType)
	})
}

// Cycle implements bmc.Power.
func (c *Client) Cycle(ctx context.Context) error {
	return c.call(ctx, "power cycle", true, func(ctx context.Context, api *gofish.APIClient) error {
		return c.reset(api, schemas.PowerCycleResetType, schemas.FullPowerCycleResetType)
	})
}
