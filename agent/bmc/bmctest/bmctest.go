// Package bmctest is the suite that every BMC driver passes: the promises of agent/bmc's interfaces, as tests.
package bmctest

import (
	"context"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Rig makes clients of one machine that starts powered off.
type Rig struct {
	// Open makes a client with the machine's driver_info, changed by the overrides ("" removes a key).
	Open func(t *testing.T, overrides map[string]string) (bmc.Client, error)
	// Starts counts the machine's power ons and resets.
	Starts func() int
	// Unreachable and WrongPassword are overrides that make it so; Bad makes Open fail with fault.Invalid.
	Unreachable, WrongPassword, Bad map[string]string
	// Hang makes every answer take longer than the caller waits.
	Hang func(t *testing.T) (overrides map[string]string)
	// Stuck makes the BMC take power requests and do nothing.
	Stuck func(t *testing.T) (overrides map[string]string)
}

// Run runs the suite. newRig is called once per test: machines are not shared.
func Run(t *testing.T, newRig func(t *testing.T) Rig) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, r Rig)
	}{
		{"power is set and read back", testPower},
		{"power can be set twice", testPowerTwice},
		{"boot device once is used up", testBootOnce},
		{"boot device persistent stays", testBootPersistent},
		{"soft off", testSoftOff},
		{"reset starts the machine again", testReset},
		{"identity names the machine", testIdentity},
		{"errors have kinds", testErrors},
		{"a hanging BMC costs the deadline", testHang},
		{"a stuck BMC is a timeout", testStuck},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newRig(t)) })
	}
}

func open(t *testing.T, r Rig, overrides map[string]string) bmc.Client {
	t.Helper()
	c, err := r.Open(t, overrides)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func wantPower(t *testing.T, c bmc.Client, want bmc.PowerState) {
	t.Helper()
	got, err := c.Power(t.Context())
	if err != nil || got != want {
		t.Fatalf("Power() = %v, %v; want %v", got, err, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantKind(t *testing.T, what string, err error, want fault.Kind) {
	t.Helper()
	if !fault.Is(err, want) {
		t.Errorf("%s: error %v is %v, want %v", what, err, fault.KindOf(err), want)
	}
}

func testPower(t *testing.T, r Rig) {
	c := open(t, r, nil)
	wantPower(t, c, bmc.PowerOff)
	must(t, "SetPower(on)", c.SetPower(t.Context(), bmc.PowerOn))
	wantPower(t, c, bmc.PowerOn)
	wantPower(t, open(t, r, nil), bmc.PowerOn) // another client sees the same machine
	must(t, "SetPower(off)", c.SetPower(t.Context(), bmc.PowerOff))
	wantPower(t, c, bmc.PowerOff)
	wantKind(t, "SetPower(unknown)", c.SetPower(t.Context(), bmc.PowerUnknown), fault.Invalid)
}

func testPowerTwice(t *testing.T, r Rig) {
	c := open(t, r, nil)
	must(t, "SetPower(off) when off", c.SetPower(t.Context(), bmc.PowerOff))
	must(t, "SetPower(on)", c.SetPower(t.Context(), bmc.PowerOn))
	must(t, "SetPower(on) again", c.SetPower(t.Context(), bmc.PowerOn))
	if n := r.Starts(); n != 1 {
		t.Errorf("the machine started %d times, want 1", n)
	}
}

func testBootOnce(t *testing.T, r Rig) {
	c := open(t, r, nil)
	want := bmc.Boot{Device: bmc.DevicePXE}
	must(t, "SetBootDevice", c.SetBootDevice(t.Context(), want))
	must(t, "SetBootDevice again", c.SetBootDevice(t.Context(), want))
	if b, err := c.BootDevice(t.Context()); err != nil || b.Device != bmc.DevicePXE || b.Persistent {
		t.Fatalf("BootDevice() = %+v, %v; want pxe once", b, err)
	}
	must(t, "SetPower(on)", c.SetPower(t.Context(), bmc.PowerOn))
	if b, err := c.BootDevice(t.Context()); err != nil || b.Device != bmc.DeviceNone {
		t.Errorf("after the boot BootDevice() = %+v, %v; want none", b, err)
	}
}

func testBootPersistent(t *testing.T, r Rig) {
	c := open(t, r, nil)
	for _, m := range []bmc.Mode{bmc.ModeUEFI, bmc.ModeLegacy, bmc.ModeDefault} {
		must(t, "SetBootDevice", c.SetBootDevice(t.Context(), bmc.Boot{Device: bmc.DeviceDisk, Persistent: true, Mode: m}))
		if b, err := c.BootDevice(t.Context()); err != nil || b.Device != bmc.DeviceDisk || !b.Persistent {
			t.Fatalf("BootDevice() = %+v, %v; want disk, persistent", b, err)
		}
	}
	must(t, "SetPower(on)", c.SetPower(t.Context(), bmc.PowerOn))
	if b, err := c.BootDevice(t.Context()); err != nil || b.Device != bmc.DeviceDisk || !b.Persistent {
		t.Errorf("after a boot BootDevice() = %+v, %v; want disk, persistent", b, err)
	}
	must(t, "SetBootDevice(none)", c.SetBootDevice(t.Context(), bmc.Boot{}))
	if b, err := c.BootDevice(t.Context()); err != nil || b.Device != bmc.DeviceNone {
		t.Errorf("after none BootDevice() = %+v, %v", b, err)
	}
}

func testSoftOff(t *testing.T, r Rig) {
	c := open(t, r, nil)
	must(t, "SoftOff when off", c.SoftOff(t.Context()))
	must(t, "SetPower(on)", c.SetPower(t.Context(), bmc.PowerOn))
	must(t, "SoftOff", c.SoftOff(t.Context()))
	// The request was taken: a hard off that follows finds it off or finishes the job.
	must(t, "SetPower(off)", c.SetPower(t.Context(), bmc.PowerOff))
	wantPower(t, c, bmc.PowerOff)
}

func testReset(t *testing.T, r Rig) {
	c := open(t, r, nil)
	must(t, "SetPower(on)", c.SetPower(t.Context(), bmc.PowerOn))
	must(t, "Reset", c.Reset(t.Context()))
	wantPower(t, c, bmc.PowerOn)
	must(t, "Cycle", c.Cycle(t.Context()))
	if n := r.Starts(); n != 3 {
		t.Errorf("the machine started %d times, want 3", n)
	}
}

func testIdentity(t *testing.T, r Rig) {
	c := open(t, r, nil)
	id, err := c.Identity(t.Context())
	must(t, "Identity", err)
	if id.UUID == "" || id.Serial == "" || id.Manufacturer == "" || id.Model == "" {
		t.Errorf("Identity() = %+v has empty fields", id)
	}
	inv, err := c.Inventory(t.Context())
	must(t, "Inventory", err)
	if inv.Identity != id || inv.CPUs == 0 || inv.MemoryBytes == 0 || len(inv.Disks) == 0 {
		t.Errorf("Inventory() = %+v", inv)
	}
}

func testErrors(t *testing.T, r Rig) {
	_, err := open(t, r, r.Unreachable).Power(t.Context())
	wantKind(t, "unreachable", err, fault.Unavailable)
	err = open(t, r, r.WrongPassword).SetPower(t.Context(), bmc.PowerOn)
	wantKind(t, "wrong password", err, fault.Unauthenticated)
	if n := r.Starts(); n != 0 {
		t.Errorf("the machine started %d times with a wrong password", n)
	}
	_, err = r.Open(t, r.Bad)
	wantKind(t, "bad driver_info", err, fault.Invalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = open(t, r, nil).Power(ctx)
	wantKind(t, "cancelled", err, fault.Aborted)
}

func testHang(t *testing.T, r Rig) {
	c := open(t, r, r.Hang(t))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Power(ctx)
	wantKind(t, "hang", err, fault.Timeout)
}

func testStuck(t *testing.T, r Rig) {
	c := open(t, r, r.Stuck(t))
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	wantKind(t, "stuck", c.SetPower(ctx, bmc.PowerOn), fault.Timeout)
	wantPower(t, c, bmc.PowerOff)
}
