package redfish

import (
	"context"
	"net/http"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

// target maps our devices to DMTF's ComputerSystem.BootSource.
func target(d bmc.Device) (schemas.BootSource, bool) {
	switch d {
	case bmc.DeviceNone:
		return schemas.NoneBootSource, true
	case bmc.DevicePXE:
		return schemas.PxeBootSource, true
	case bmc.DeviceDisk:
		return schemas.HddBootSource, true
	case bmc.DeviceCDROM:
		return schemas.CdBootSource, true
	case bmc.DeviceBIOS:
		return schemas.BiosSetupBootSource, true
	case bmc.DeviceHTTP:
		return schemas.UefiHTTPBootSource, true
	}
	return "", false
}

func (s systemState) boot() bmc.Boot {
	var b bmc.Boot
	if s.Boot.Mode == schemas.UEFIBootSourceOverrideMode {
		b.Mode = bmc.ModeUEFI
	} else if s.Boot.Mode == schemas.LegacyBootSourceOverrideMode {
		b.Mode = bmc.ModeLegacy
	}
	if s.Boot.Enabled != schemas.OnceBootSourceOverrideEnabled && s.Boot.Enabled != schemas.ContinuousBootSourceOverrideEnabled {
		return b
	}
	for d := bmc.DevicePXE; ; d++ {
		t, ok := target(d)
		if !ok {
			return b
		}
		if t == s.Boot.Target {
			b.Device, b.Persistent = d, s.Boot.Enabled == schemas.ContinuousBootSourceOverrideEnabled
			return b
		}
	}
}

// BootDevice implements bmc.BootDevice.
func (c *Client) BootDevice(ctx context.Context) (b bmc.Boot, err error) {
	err = c.call(ctx, "read boot device", false, func(_ context.Context, api *gofish.APIClient) error {
		s, err := c.state(api)
		b = s.boot()
		return err
	})
	return b, err
}

// SetBootDevice implements bmc.BootDevice. The mode is asked for and not insisted on: some services answer 400
// or 500 to a request that names it (Supermicro X10, several OpenBMC), and take the same request without it. Where the
// service refuses to set a device for good, it is set for the next boot.
func (c *Client) SetBootDevice(ctx context.Context, want bmc.Boot) error {
	t, ok := target(want.Device)
	if !ok {
		return fault.New(fault.Invalid, "set boot device", "no such device")
	}
	patch := schemas.Boot{BootSourceOverrideTarget: t, BootSourceOverrideEnabled: schemas.OnceBootSourceOverrideEnabled}
	switch {
	case want.Device == bmc.DeviceNone:
		patch.BootSourceOverrideEnabled = schemas.DisabledBootSourceOverrideEnabled
	case want.Persistent:
		patch.BootSourceOverrideEnabled = schemas.ContinuousBootSourceOverrideEnabled
	}
	switch want.Mode {
	case bmc.ModeUEFI:
		patch.BootSourceOverrideMode = schemas.UEFIBootSourceOverrideMode
	case bmc.ModeLegacy:
		patch.BootSourceOverrideMode = schemas.LegacyBootSourceOverrideMode
	}
	persistent := want.Persistent
	isSo := func(s systemState) bool {
		b := s.boot()
		return b.Device == want.Device && (want.Device == bmc.DeviceNone || b.Persistent == persistent)
	}
	return c.call(ctx, "set boot device", true, func(ctx context.Context, api *gofish.APIClient) error {
		sys, err := c.fullSystem(api)
		if err != nil {
			return err
		}
		sent := c.setBoot(sys, patch)
		if refused(sent) && patch.BootSourceOverrideMode != "" {
			patch.BootSourceOverrideMode = ""
			sent = c.setBoot(sys, patch)
		}
		if refused(sent) && want.Device != bmc.DeviceNone && want.Persistent {
			patch.BootSourceOverrideEnabled, persistent = schemas.OnceBootSourceOverrideEnabled, false
			if once := c.setBoot(sys, patch); once == nil {
				sent = nil
			} else {
				persistent = true // the state decides, by what was asked for
			}
		}
		return c.untilState(ctx, api, sent, isSo, func(s systemState) string {
			return string(s.Boot.Enabled) + " " + string(s.Boot.Target)
		})
	})
}

// setBoot sends one PATCH of the boot override, with the tag of what was read: some services insist on one (Fujitsu
// iRMC: 428). Several never match the tag that they gave (HPE iLO 5, Supermicro X11: 412) and take the same without it.
func (c *Client) setBoot(sys *schemas.ComputerSystem, patch schemas.Boot) error {
	sys.DisableEtagMatch(false)
	err := sys.SetBoot(&patch)
	if statusOf(err) == http.StatusPreconditionFailed {
		sys.DisableEtagMatch(true)
		err = sys.SetBoot(&patch)
	}
	c.sent = c.sent || statusOf(err) != http.StatusUnauthorized
	return err
}

// refused tells whether the service answered, and neither did it nor asked for another session.
func refused(err error) bool { return statusOf(err) >= 400 && statusOf(err) != http.StatusUnauthorized }
