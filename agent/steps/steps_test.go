package steps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/bmc/fake"
	"github.com/farrier-project/farrier/agent/driver"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// bench is a task on a fake machine whose BMC fails at chosen calls.
type bench struct {
	order    work.Order
	machines *fake.Driver
	info     map[string]string
	failAt   int  // the call that fails, counted from 1; 0: none
	after    bool // it takes effect before it fails
	err      error
	calls    int
	intents  int
	log      []string
}

func (b *bench) Order() work.Order { return b.order }
func (b *bench) Driver() string    { return "fake-hardware" }

func (b *bench) Turn(ctx context.Context, fn func(ctx context.Context, c bmc.Client, do Do) error) error {
	c, err := b.machines.Open(bmc.Target{Node: b.order.Node, DriverInfo: b.info})
	if err != nil {
		return err
	}
	return fn(ctx, flaky{c, b}, func(ctx context.Context, deadline time.Duration, effect func(context.Context) error) error {
		b.intents++
		ctx, cancel := context.WithTimeoutCause(ctx, deadline, fault.New(fault.Timeout, "change", "the BMC did not do it within %v", deadline))
		defer cancel()
		return effect(ctx)
	})
}

// fail tells whether this call fails, and counts it.
func (b *bench) fail(name string, effect func() error) error {
	b.calls++
	b.log = append(b.log, name)
	if b.calls == b.failAt && !b.after {
		return b.err
	}
	err := effect()
	if b.calls == b.failAt {
		return b.err
	}
	return err
}

type flaky struct {
	bmc.Client
	b *bench
}

func (f flaky) Power(ctx context.Context) (p bmc.PowerState, err error) {
	err = f.b.fail("read power", func() error { p, err = f.Client.Power(ctx); return err })
	return p, err
}
func (f flaky) SetPower(ctx context.Context, want bmc.PowerState) error {
	return f.b.fail("set "+want.String(), func() error { return f.Client.SetPower(ctx, want) })
}
func (f flaky) SoftOff(ctx context.Context) error {
	return f.b.fail("soft off", func() error { return f.Client.SoftOff(ctx) })
}
func (f flaky) BootDevice(ctx context.Context) (d bmc.Boot, err error) {
	err = f.b.fail("read boot device", func() error { d, err = f.Client.BootDevice(ctx); return err })
	return d, err
}
func (f flaky) SetBootDevice(ctx context.Context, want bmc.Boot) error {
	return f.b.fail("set boot device", func() error { return f.Client.SetBootDevice(ctx, want) })
}
func (f flaky) Identity(ctx context.Context) (id bmc.Identity, err error) {
	err = f.b.fail("read identity", func() error { id, err = f.Client.Identity(ctx); return err })
	return id, err
}

// shelf is a boot environment.
type shelf struct {
	served  map[string]string
	machine bmc.Identity // as the BMC said before
	err     error
}

func (s *shelf) Prepare(_ context.Context, node, boot string, machine bmc.Identity) (bool, error) {
	if s.err != nil {
		return false, s.err
	}
	s.served[node], s.machine = boot, machine
	return true, nil
}
func (s *shelf) Teardown(_ context.Context, node, boot string) error {
	if s.err != nil {
		return s.err
	}
	delete(s.served, node)
	return nil
}

func runner(s *shelf) *Runner {
	return &Runner{Checker: driver.NewTypes(driver.Fake(fake.New())), Boots: s, Log: slog.New(slog.DiscardHandler)}
}

func orderOf(full string, args map[string]string) work.Order {
	iface, name, _ := strings.Cut(full, ".")
	o := work.Order{Ref: work.Ref{Node: "n1", Flow: 1, Attempt: 1}, Token: 1, Interface: iface, Name: name, Class: step.Set, Executor: step.BMC, Args: args, BootID: "b1"}
	if iface == "boot" {
		o.Executor = step.Agent
	}
	return o
}

var list = []struct { // read-only: every step that the agent runs, and what is so after it
	full string
	args map[string]string
	from bmc.PowerState
	want func(t *testing.T, b *bench, s *shelf, facts map[string]string)
}{
	{"power.power_on", nil, bmc.PowerOff, powerIs(bmc.PowerOn)},
	{"power.power_off", nil, bmc.PowerOn, powerIs(bmc.PowerOff)},
	{"power.soft_power_off", nil, bmc.PowerOn, powerIs(bmc.PowerOff)},
	{"management.set_boot_device", map[string]string{"device": "pxe", "persistent": "false"}, bmc.PowerOff, bootIs(bmc.Boot{Device: bmc.DevicePXE})},
	{"management.set_boot_device", map[string]string{"device": "disk", "persistent": "true"}, bmc.PowerOff, bootIs(bmc.Boot{Device: bmc.DeviceDisk, Persistent: true})},
	{"management.verify", nil, bmc.PowerOn, func(t *testing.T, b *bench, s *shelf, facts map[string]string) {
		if facts["power_state"] != "power on" || facts["system_uuid"] != "n1" || facts["serial"] != "FAKE-n1" {
			t.Errorf("facts %v", facts)
		}
	}},
	{"boot.prepare", nil, bmc.PowerOff, func(t *testing.T, b *bench, s *shelf, facts map[string]string) {
		if s.served["n1"] != "b1" || s.machine.UUID != "n1" || facts["weak_boot"] != "true" || facts["system_uuid"] != "n1" || facts["serial"] != "FAKE-n1" {
			t.Errorf("served %v to %+v, facts %v", s.served, s.machine, facts)
		}
	}},
	{"boot.teardown", nil, bmc.PowerOff, func(t *testing.T, b *bench, s *shelf, _ map[string]string) {
		if len(s.served) != 0 {
			t.Errorf("served %v", s.served)
		}
	}},
}

func powerIs(want bmc.PowerState) func(*testing.T, *bench, *shelf, map[string]string) {
	return func(t *testing.T, b *bench, _ *shelf, facts map[string]string) {
		c, _ := b.machines.Open(bmc.Target{Node: "n1"})
		if p, err := c.Power(t.Context()); err != nil || p != want || facts["power_state"] != want.String() {
			t.Errorf("power is %v, facts %v, want %v", p, facts, want)
		}
	}
}

func bootIs(want bmc.Boot) func(*testing.T, *bench, *shelf, map[string]string) {
	return func(t *testing.T, b *bench, _ *shelf, facts map[string]string) {
		c, _ := b.machines.Open(bmc.Target{Node: "n1"})
		got, err := c.BootDevice(t.Context())
		if err != nil || got.Device != want.Device || got.Persistent != want.Persistent || facts["boot_device"] != want.Device.String() {
			t.Errorf("boot device is %+v, facts %v, want %+v", got, facts, want)
		}
	}
}

// setUp makes a bench for a step, with the machine in its starting state.
func setUp(t *testing.T, full string, args map[string]string, from bmc.PowerState) (*bench, *shelf) {
	b := &bench{order: orderOf(full, args), machines: fake.New()}
	c, err := b.machines.Open(bmc.Target{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetPower(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	return b, &shelf{served: map[string]string{"n1": "b1"}}
}

// TestRunTwice: a step that is done is found so.
func TestRunTwice(t *testing.T) {
	for _, tc := range list {
		t.Run(tc.full, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := setUp(t, tc.full, tc.args, tc.from)
				out := runner(s).Run(t.Context(), b)
				if !out.OK {
					t.Fatal(out.Error)
				}
				tc.want(t, b, s, out.Facts)
				intents := b.intents
				b.order.Resumed = true
				out = runner(s).Run(t.Context(), b)
				if !out.OK {
					t.Fatal(out.Error)
				}
				tc.want(t, b, s, out.Facts)
				if b.intents != intents {
					t.Errorf("the second run made %d effects", b.intents-intents)
				}
			})
		})
	}
}

// TestFailAtEachCall: at each call of each step the BMC fails for good, before or after the effect; the step says
// so, and run again it ends as if nothing had been.
func TestFailAtEachCall(t *testing.T) {
	gone := fault.New(fault.Unauthenticated, "call", "the BMC refuses the password")
	for _, tc := range list {
		for _, after := range []bool{false, true} {
			for at := 1; at <= 8; at++ {
				synctest.Test(t, func(t *testing.T) {
					b, s := setUp(t, tc.full, tc.args, tc.from)
					b.failAt, b.after, b.err = at, after, gone
					out := runner(s).Run(t.Context(), b)
					reached := b.calls >= at
					if reached && out.OK {
						t.Errorf("%s: call %d (%s) failed, and the step is done", tc.full, at, b.log[at-1])
					}
					if !out.OK && (!strings.Contains(out.Error, "refuses the password") || out.Kind != fault.Unauthenticated || out.Retryable) {
						t.Errorf("%s: outcome %+v does not name the cause", tc.full, out)
					}
					b.failAt = 0
					b.order.Attempt, b.order.Resumed = 2, true
					out = runner(s).Run(t.Context(), b)
					if !out.OK {
						t.Errorf("%s after a failure at call %d: %s", tc.full, at, out.Error)
						return
					}
					tc.want(t, b, s, out.Facts)
				})
			}
		}
	}
}

func TestBootStepsNameTheirCause(t *testing.T) {
	for _, full := range []string{"boot.prepare", "boot.teardown"} {
		b, s := setUp(t, full, nil, bmc.PowerOff)
		s.err = fault.New(fault.Invalid, "prepare boot", "this agent has no kernel")
		if out := runner(s).Run(t.Context(), b); out.OK || out.Kind != fault.Invalid || !strings.Contains(out.Error, "no kernel") {
			t.Errorf("%s: %+v", full, out)
		}
	}
}

// TestThreeTries: errors of the way are tried three times, with pauses; what was done meanwhile is found.
func TestThreeTries(t *testing.T) {
	for _, tc := range []struct {
		first string // fake_fail_first
		ok    bool
		calls string
	}{
		{"2", true, "read power,set power on,read power,set power on,read power,set power on,read power"},
		{"3", false, "read power,set power on,read power,set power on,read power,set power on"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, s := setUp(t, "power.power_on", nil, bmc.PowerOff)
			b.info = map[string]string{"fake_fail_first": tc.first}
			began := time.Now()
			out := runner(s).Run(t.Context(), b)
			if out.OK != tc.ok || strings.Join(b.log, ",") != tc.calls {
				t.Errorf("%s failures: ok %v, calls %v", tc.first, out.OK, b.log)
			}
			if !out.OK && !out.Retryable {
				t.Errorf("outcome %+v is not retryable", out)
			}
			if time.Since(began) < 100*time.Millisecond {
				t.Error("no pause between tries")
			}
		})
	}
}

// TestLies: a BMC that accepts and does nothing, one that hangs, one that cannot.
func TestLies(t *testing.T) {
	for _, tc := range []struct {
		full, lie string
		kind      fault.Kind
		text      string
	}{
		{"power.power_on", "stuck", fault.Timeout, "accepted"},
		{"power.power_on", "hang", fault.Timeout, ""},
		{"power.power_on", "unreachable", fault.Unavailable, "cannot be reached"},
		{"power.power_on", "password", fault.Unauthenticated, "password"},
		{"management.verify", "password", fault.Unauthenticated, "password"},
		{"management.set_boot_device", "no-boot", fault.Unsupported, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, s := setUp(t, tc.full, map[string]string{"device": "pxe"}, bmc.PowerOff)
			b.info = map[string]string{"fake_fault": tc.lie}
			ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Second, fault.New(fault.Timeout, tc.full, "not done within 100s"))
			defer cancel()
			out := runner(s).Run(ctx, b)
			if out.OK || out.Kind != tc.kind || !strings.Contains(out.Error, tc.text) {
				t.Errorf("%s with %s: %+v", tc.full, tc.lie, out)
			}
		})
	}
}

func TestUnknownStepsAndArguments(t *testing.T) {
	for _, tc := range []struct {
		full string
		args map[string]string
		kind fault.Kind
	}{
		{"power.explode", nil, fault.Unsupported},
		{"bios.reset", nil, fault.Unsupported},
		{"management.set_boot_device", nil, fault.Invalid},
		{"management.set_boot_device", map[string]string{"device": "toaster"}, fault.Invalid},
		{"deploy.write_image", nil, fault.Unsupported}, // not the BMC's
	} {
		b, s := setUp(t, tc.full, tc.args, bmc.PowerOff)
		if out := runner(s).Run(t.Context(), b); out.OK || out.Kind != tc.kind {
			t.Errorf("%s %v: %+v, want %s", tc.full, tc.args, out, tc.kind)
		}
	}
}

// depot is an image cache with a door.
type depot struct {
	open    chan struct{}
	err     error
	fetched chan string

	mu   sync.Mutex // guards held, and err once Run runs
	held map[string]string
}

func (d *depot) Hold(holder, sha string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		d.held = map[string]string{}
	}
	d.held[holder] = sha
}

func (d *depot) Release(holder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.held, holder)
}

func (d *depot) holders() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.held)
}

func (d *depot) Fetch(ctx context.Context, url, sha, format string) error {
	d.fetched <- url + " " + sha + " " + format
	select {
	case <-d.open:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *depot) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

type courierLog struct{ ch chan string }

func (c courierLog) Deliver(o work.Order)               { c.ch <- "deliver " + o.Node + " " + o.Full() }
func (c courierLog) Cancel(o work.Order, reason string) { c.ch <- "cancel " + o.Node }

func TestRelayFetchesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		d := &depot{open: make(chan struct{}), fetched: make(chan string, 9)}
		said := make(chan string, 9)
		r := NewRelay(d, courierLog{said}, func(o work.Outcome) { said <- "failed " + o.Node + ": " + o.Error }, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		image := map[string]string{"url": "http://x/i", "sha256": "ab", "format": "raw"}
		write := func(node string) work.Order {
			o := orderOf("deploy.write_image", image)
			o.Node = node
			return o
		}
		r.Deliver(write("n1"))
		r.Deliver(write("n2"))
		r.Deliver(write("n2")) // a repeat
		r.Deliver(write("n3"))
		r.Deliver(orderOf("deploy.erase_devices", nil)) // needs no image
		choose := orderOf("deploy.select_disk", image)
		choose.Node = "n5"
		r.Deliver(choose) // needs its size
		r.Cancel(write("n3"), "abort")
		synctest.Wait()
		if got := <-d.fetched; got != "http://x/i ab raw" || len(d.fetched) != 0 {
			t.Errorf("fetched %q and %d more", got, len(d.fetched))
		}
		if a, b := <-said, <-said; a != "deliver n1 deploy.erase_devices" || b != "failed n3: deploy.write_image: cancelled: abort (aborted)" || len(said) != 0 {
			t.Errorf("said %q, %q and %d more before the image was there", a, b, len(said))
		}
		close(d.open)
		if a, b, c := <-said, <-said, <-said; a != "deliver n1 deploy.write_image" || b != "deliver n2 deploy.write_image" || c != "deliver n5 deploy.select_disk" {
			t.Errorf("said %q, %q, %q", a, b, c)
		}
		d.fail(fault.New(fault.Corrupt, "download", "another digest"))
		r.Deliver(write("n4"))
		if a := <-said; a != "failed n4: fetch image: download: another digest (corrupt)" {
			t.Errorf("said %q", a)
		}
		r.Cancel(write("n4"), "late")
		if a := <-said; a != "cancel n4" {
			t.Errorf("said %q", a)
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestSoftPowerOffNeverCutsThePower: an operating system that took 45 s to stop was killed at 30, and a request that
// failed was a hard power off at once. It is asked once, is given its ten minutes, and then the step fails.
func TestSoftPowerOffNeverCutsThePower(t *testing.T) {
	for name, tt := range map[string]struct {
		info map[string]string
		err  error      // of the request, after it took effect
		kind fault.Kind // invalid zero: done
	}{
		"slow":             {info: map[string]string{"fake_power_delay": "45s"}},
		"very slow":        {info: map[string]string{"fake_power_delay": "9m"}},
		"answer lost":      {info: map[string]string{"fake_power_delay": "45s"}, err: fault.New(fault.UnknownOutcome, "x", "cut")},
		"answer late":      {info: map[string]string{"fake_power_delay": "45s"}, err: fault.New(fault.Timeout, "x", "late")},
		"refused":          {info: map[string]string{"fake_power_delay": "8s"}, err: fault.New(fault.Unsupported, "x", "400"), kind: fault.Unsupported},
		"does not stop":    {info: map[string]string{"fake_fault": "stuck"}, kind: fault.Timeout},
		"lost, not coming": {info: map[string]string{"fake_fault": "stuck"}, err: fault.New(fault.UnknownOutcome, "x", "cut"), kind: fault.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := setUp(t, "power.soft_power_off", nil, bmc.PowerOn)
				b.info, b.order.Deadline = tt.info, 11*time.Minute
				if tt.err != nil {
					b.failAt, b.after, b.err = 2, true, tt.err
				}
				out := runner(s).Run(t.Context(), b)
				if out.OK != (tt.kind == 0) || out.Kind != tt.kind || out.Retryable {
					t.Errorf("outcome %+v", out)
				}
				if tt.kind == fault.Timeout && !strings.Contains(out.Error, "has not shut down within 10m") {
					t.Errorf("it says %q", out.Error)
				}
				if asked := count(b.log, "soft off"); asked != 1 || count(b.log, "set power off") != 0 {
					t.Errorf("asked %d times, and then %v", asked, b.log)
				}
			})
		})
	}
}

// TestSoftPowerOffIsAskedAgainWhenItWasNot: nothing listened at the BMC's port; the second request is the first that
// reaches it.
func TestSoftPowerOffIsAskedAgainWhenItWasNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := setUp(t, "power.soft_power_off", nil, bmc.PowerOn)
		b.failAt, b.err = 2, fault.New(fault.Unavailable, "x", "refused")
		if out := runner(s).Run(t.Context(), b); !out.OK || count(b.log, "soft off") != 2 {
			t.Errorf("%+v after %v", out, b.log)
		}
	})
}

// TestResumedSoftPowerOffPushedTheButtonTwice: the agent before had asked, and died. Who goes on asks only if the machine is
// still on after a while.
func TestResumedSoftPowerOffPushedTheButtonTwice(t *testing.T) {
	for name, tt := range map[string]struct {
		before bool // it was asked
		asked  int
	}{"it was asked": {true, 0}, "it was not asked": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := setUp(t, "power.soft_power_off", nil, bmc.PowerOn)
				b.info, b.order.Deadline = map[string]string{"fake_power_delay": "45s"}, 11*time.Minute
				if tt.before {
					earlier := *b
					life, die := context.WithCancel(t.Context())
					go runner(s).Run(life, &earlier)
					synctest.Wait() // for the machine to go off
					if die(); count(earlier.log, "soft off") != 1 {
						t.Fatalf("the agent before did %v", earlier.log)
					}
				}
				b.order.Resumed = true
				if out := runner(s).Run(t.Context(), b); !out.OK || count(b.log, "soft off") != tt.asked {
					t.Errorf("%+v after %v", out, b.log)
				}
			})
		})
	}
}

func count(log []string, call string) (n int) {
	for _, c := range log {
		if c == call {
			n++
		}
	}
	return n
}

// TestCancelledFetchesFreeTheirPlaces: four orders whose images never ended, cancelled long since, kept the fifth
// node's image from being fetched until the agent started again.
func TestCancelledFetchesFreeTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		d := &depot{open: make(chan struct{}), fetched: make(chan string, 99)}
		said := make(chan string, 99)
		r := NewRelay(d, courierLog{said}, func(o work.Outcome) { said <- "failed " + o.Node }, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		write := func(i int) work.Order {
			o := orderOf("deploy.write_image", map[string]string{"url": fmt.Sprint("http://drip/", i), "sha256": fmt.Sprint(i), "format": "raw"})
			o.Node = fmt.Sprint("n", i)
			return o
		}
		for i := range 6 {
			r.Deliver(write(i))
			synctest.Wait()
		}
		if len(d.fetched) != fetchesAtOnce {
			t.Fatalf("%d fetches at once", len(d.fetched))
		}
		r.Cancel(write(4), "aborted while it was queued")
		for i := range 4 {
			r.Cancel(write(i), "aborted by its user")
		}
		synctest.Wait()
		var last string
		for len(d.fetched) > 0 {
			last = <-d.fetched
		}
		if last != "http://drip/5 5 raw" || d.holders() != "map[n5:5]" {
			t.Errorf("fetched last: %q; held: %s", last, d.holders())
		}
		stop()
		<-done
	})
}

// TestImageIsHeldWhileItsOrderLasts: from the order until its outcome, or the node's next order, or its loss. A fetch
// for which there is no room waits for it.
func TestImageIsHeldWhileItsOrderLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		d := &depot{open: make(chan struct{}), fetched: make(chan string, 99), err: fault.New(fault.Busy, "cache", "no room")}
		close(d.open)
		said := make(chan string, 99)
		r := NewRelay(d, courierLog{said}, func(o work.Outcome) { said <- "failed " + o.Node }, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		o := orderOf("deploy.write_image", map[string]string{"url": "http://x", "sha256": "ab", "format": "raw"})
		r.Deliver(o)
		synctest.Wait()
		if len(said) != 0 || d.holders() != "map[n1:ab]" {
			t.Errorf("without room: %d messages, held %s", len(said), d.holders())
		}
		d.fail(nil)
		time.Sleep(roomPause)
		if m := <-said; m != "deliver n1 deploy.write_image" || d.holders() != "map[n1:ab]" {
			t.Errorf("with room: %s, held %s", m, d.holders())
		}
		earlier := o.Ref
		earlier.Step = 99
		if r.Ended(earlier); d.holders() != "map[n1:ab]" {
			t.Error("the end of another order released the image")
		}
		if r.Ended(o.Ref); d.holders() != "map[]" {
			t.Error("the end of the order did not release the image")
		}
		for name, end := range map[string]func(){"next order": func() { r.Deliver(orderOf("deploy.write_config_drive", nil)) }, "loss": func() { r.Forget("n1") }} {
			r.Deliver(o)
			synctest.Wait()
			if end(); d.holders() != "map[]" {
				t.Errorf("%s: held %s", name, d.holders())
			}
		}
		stop()
		<-done
	})
}
