package fake

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	maxNodes      = 1 << 20 // records kept; more is an error, not more memory
	maxDelay      = 10 * time.Minute
	changeTimeout = 10 * time.Second // of a change whose context has no deadline
)

// Driver keeps the fake machines of one agent process. It is safe for concurrent use; make it with New.
type Driver struct {
	mu       sync.Mutex // guards machines and every machine in it
	machines map[string]*machine
}

type machine struct {
	power   bmc.PowerState
	pending bmc.PowerState // PowerUnknown: none
	ready   time.Time      // when pending becomes power
	boot    bmc.Boot
	failed  int // changing calls that were made to fail
	starts  int // power ons, resets and cycles
}

// New makes a Driver whose machines all start powered off.
func New() *Driver { return &Driver{machines: make(map[string]*machine)} }

// Open implements bmc.Factory.
func (d *Driver) Open(t bmc.Target) (bmc.Client, error) {
	c := &client{driver: d, node: t.Node, fault: t.DriverInfo["fake_fault"]}
	var err error
	if c.delay, err = duration(t.DriverInfo, "fake_delay"); err != nil {
		return nil, err
	}
	if c.powerDelay, err = duration(t.DriverInfo, "fake_power_delay"); err != nil {
		return nil, err
	}
	if text := t.DriverInfo["fake_fail_first"]; text != "" {
		if c.failFirst, err = strconv.Atoi(text); err != nil || c.failFirst < 0 {
			return nil, invalid("fake_fail_first", "it is not a count")
		}
	}
	switch c.fault {
	case "", "unreachable", "password", "hang", "stuck", "no-boot", "no-reset":
	default:
		return nil, invalid("fake_fault", "it is unknown")
	}
	c.id = bmc.Identity{
		UUID: orDefault(t.DriverInfo["fake_uuid"], t.Node), Serial: orDefault(t.DriverInfo["fake_serial"], "FAKE-"+t.Node),
		Manufacturer: orDefault(t.DriverInfo["fake_manufacturer"], "Farrier"),
		Model:        orDefault(t.DriverInfo["fake_model"], "Fake machine (simulated)"),
	}
	return c, nil
}

func orDefault(s, def string) string {
	if s != "" {
		return s
	}
	return def
}

func duration(info map[string]string, key string) (time.Duration, error) {
	text := info[key]
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, invalid(key, "it is not a duration of at most 10m")
	}
	return d, nil
}

func invalid(field, what string) error {
	return fault.New(fault.Invalid, "read driver_info", "%s: %s", field, what).
		WithHelp("see the fake driver's settings in docs/operations.md").WithDetail(&fault.FieldDetail{Field: "driver_info." + field})
}

// with runs fn on the node's record, settled to now.
func (d *Driver) with(node string, fn func(m *machine)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[node]
	if m == nil {
		if len(d.machines) >= maxNodes {
			return fault.New(fault.Busy, "open fake bmc", "%d fake machines exist already", maxNodes)
		}
		m = &machine{power: bmc.PowerOff}
		d.machines[node] = m
	}
	if m.pending != bmc.PowerUnknown && !time.Now().Before(m.ready) {
		m.power, m.pending = m.pending, bmc.PowerUnknown
	}
	fn(m)
	return nil
}

// Starts is how often the node was powered on, reset or cycled: for tests.
func (d *Driver) Starts(node string) (n int) {
	_ = d.with(node, func(m *machine) { n = m.starts })
	return n
}

type client struct {
	driver            *Driver
	node, fault       string
	delay, powerDelay time.Duration
	failFirst         int
	id                bmc.Identity
}

var _ bmc.Client = (*client)(nil)

// answer is what every call does first: the delay, then the fault that was asked for.
func (c *client) answer(ctx context.Context, op string, change bool) error {
	delay := c.delay
	if c.fault == "hang" {
		delay = maxDelay
	}
	if err := pause(ctx, op, delay); err != nil {
		return err
	}
	switch c.fault {
	case "unreachable":
		return fault.New(fault.Unavailable, op, "the BMC cannot be reached (fake_fault)").WithHelp("clear fake_fault in driver_info")
	case "password":
		return fault.New(fault.Unauthenticated, op, "the BMC refuses the user name or password (fake_fault)").WithHelp("clear fake_fault in driver_info")
	}
	if !change || c.failFirst == 0 {
		return nil
	}
	fail := false
	if err := c.driver.with(c.node, func(m *machine) {
		if fail = m.failed < c.failFirst; fail {
			m.failed++
		}
	}); err != nil {
		return err
	}
	if fail {
		return fault.New(fault.Unavailable, op, "the BMC failed (fake_fail_first)")
	}
	return nil
}

// pause waits, and fails when the caller gave up or its deadline passed.
func pause(ctx context.Context, op string, d time.Duration) error {
	if d > 0 && ctx.Err() == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	switch err := ctx.Err(); err {
	case nil:
		return nil
	case context.Canceled:
		return fault.New(fault.Aborted, op, "%w", err)
	default:
		return fault.New(fault.Timeout, op, "the BMC did not answer in time: %w", err)
	}
}

// Power implements bmc.Power.
func (c *client) Power(ctx context.Context) (p bmc.PowerState, err error) {
	if err := c.answer(ctx, "read power state", false); err != nil {
		return p, err
	}
	err = c.driver.with(c.node, func(m *machine) {
		if p = m.power; m.pending != bmc.PowerUnknown {
			p = bmc.PowerUnknown
		}
	})
	return p, err
}

// SetPower implements bmc.Power.
func (c *client) SetPower(ctx context.Context, want bmc.PowerState) error {
	if want != bmc.PowerOn && want != bmc.PowerOff {
		return fault.New(fault.Invalid, "set power", "no such state")
	}
	op := "set " + want.String()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, changeTimeout)
		defer cancel()
	}
	if err := c.answer(ctx, op, true); err != nil {
		return err
	}
	wait := time.Duration(0)
	err := c.driver.with(c.node, func(m *machine) {
		switch {
		case m.pending == want || (m.power == want && m.pending == bmc.PowerUnknown):
			wait = time.Until(m.ready)
		case c.fault == "stuck":
			wait = maxDelay
		default:
			m.move(want, c.powerDelay)
			wait = c.powerDelay
		}
	})
	if err != nil {
		return err
	}
	if wait <= 0 {
		return nil
	}
	if err := pause(ctx, op, wait); err != nil {
		if fault.Is(err, fault.Timeout) {
			return fault.New(fault.Timeout, op, "the BMC accepted the change and is not %q yet", want.String())
		}
		return err
	}
	return nil
}

func (m *machine) move(want bmc.PowerState, delay time.Duration) {
	if want == bmc.PowerOn {
		m.started()
	}
	if delay <= 0 {
		m.power, m.pending = want, bmc.PowerUnknown
		return
	}
	m.pending, m.ready = want, time.Now().Add(delay)
}

// started uses up a one-shot override, as firmware does.
func (m *machine) started() {
	m.starts++
	if !m.boot.Persistent {
		m.boot = bmc.Boot{Mode: m.boot.Mode}
	}
}

// SoftOff implements bmc.Power.
func (c *client) SoftOff(ctx context.Context) error {
	if err := c.answer(ctx, "ask for shutdown", true); err != nil {
		return err
	}
	return c.driver.with(c.node, func(m *machine) {
		if m.power != bmc.PowerOff && c.fault != "stuck" {
			m.move(bmc.PowerOff, c.powerDelay)
		}
	})
}

// Reset implements bmc.Power.
func (c *client) Reset(ctx context.Context) error { return c.restart(ctx, "reset") }

// Cycle implements bmc.Power.
func (c *client) Cycle(ctx context.Context) error { return c.restart(ctx, "power cycle") }

func (c *client) restart(ctx context.Context, op string) error {
	if err := c.answer(ctx, op, true); err != nil {
		return err
	}
	if c.fault == "no-reset" {
		return fault.New(fault.Unsupported, op, "the BMC offers no reset (fake_fault)")
	}
	off := false
	err := c.driver.with(c.node, func(m *machine) {
		if off = m.power != bmc.PowerOn; !off {
			m.started()
		}
	})
	if err == nil && off {
		return fault.New(fault.Busy, op, "the machine is off")
	}
	return err
}

// BootDevice implements bmc.BootDevice.
func (c *client) BootDevice(ctx context.Context) (b bmc.Boot, err error) {
	if err := c.answer(ctx, "read boot device", false); err != nil {
		return b, err
	}
	err = c.driver.with(c.node, func(m *machine) { b = m.boot })
	return b, err
}

// SetBootDevice implements bmc.BootDevice.
func (c *client) SetBootDevice(ctx context.Context, want bmc.Boot) error {
	if err := c.answer(ctx, "set boot device", true); err != nil {
		return err
	}
	if c.fault == "no-boot" {
		return fault.New(fault.Unsupported, "set boot device", "the BMC has no boot override (fake_fault)")
	}
	return c.driver.with(c.node, func(m *machine) {
		if want.Mode == bmc.ModeDefault {
			want.Mode = m.boot.Mode
		}
		m.boot = want
	})
}

// Identity implements bmc.Describer.
func (c *client) Identity(ctx context.Context) (bmc.Identity, error) {
	if err := c.answer(ctx, "read identity", false); err != nil {
		return bmc.Identity{}, err
	}
	return c.id, nil
}

// Inventory implements bmc.Describer.
func (c *client) Inventory(ctx context.Context) (bmc.Inventory, error) {
	if err := c.answer(ctx, "read inventory", false); err != nil {
		return bmc.Inventory{}, err
	}
	return bmc.Inventory{
		Identity: c.id, BIOSVersion: "fake 1.0", CPUs: 1, CPUModel: "simulated", MemoryBytes: 16 << 30,
		Disks: []bmc.Disk{{Name: "disk0", Model: "simulated", Serial: c.id.Serial + "-0", Bytes: 100 << 30}},
	}, nil
}

// Close implements bmc.Client.
func (c *client) Close(context.Context) error { return nil }
