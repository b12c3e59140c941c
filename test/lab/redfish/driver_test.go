package redfish_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/bmc/bmctest"
	driver "github.com/farrier-project/farrier/agent/bmc/redfish"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/test/lab"
	"github.com/farrier-project/farrier/test/lab/redfish"
)

// chassis is the smallest machine.
type chassis struct {
	mu     sync.Mutex
	on     bool
	starts int
	boot   lab.Boot
}

func (c *chassis) start() {
	c.on = true
	c.starts++
	if c.boot.Once {
		c.boot = lab.Boot{Target: lab.BootNone, Mode: c.boot.Mode}
	}
}
func (c *chassis) Powered() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.on }
func (c *chassis) PowerOn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on {
		c.start()
	}
	return nil
}
func (c *chassis) PowerOff() error { c.mu.Lock(); defer c.mu.Unlock(); c.on = false; return nil }
func (c *chassis) SoftOff() error  { return c.PowerOff() }
func (c *chassis) Reset() error    { c.mu.Lock(); defer c.mu.Unlock(); c.start(); return nil }
func (c *chassis) Boot() lab.Boot  { c.mu.Lock(); defer c.mu.Unlock(); return c.boot }
func (c *chassis) SetBoot(boot lab.Boot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot = boot
	return nil
}
func (c *chassis) count() int { c.mu.Lock(); defer c.mu.Unlock(); return c.starts }
func (c *chassis) Board() lab.Board {
	return lab.Board{
		UUID: "9f3f1c4e-0000-4000-8000-000000000001", Serial: "SN1", Manufacturer: "Farrier", Model: "Simulated 1",
		MACs: []string{"52:54:00:00:00:01"}, MemoryBytes: 16 << 30, CPUs: 2,
		Disks: []lab.Disk{{Name: "disk0", Serial: "D1", Model: "simulated", Bytes: 1 << 30}},
	}
}

func start(t *testing.T) (*redfish.BMC, *chassis) {
	t.Helper()
	m := &chassis{}
	b, err := redfish.Start(redfish.Config{Machine: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, m
}

func openClient(t *testing.T, b *redfish.BMC, overrides map[string]string) *driver.Client {
	t.Helper()
	info := b.DriverInfo()
	maps.Copy(info, overrides)
	c, err := (&driver.Driver{Poll: 5 * time.Millisecond, ChangeTimeout: 2 * time.Second}).Open(bmc.Target{Node: "n1", DriverInfo: info})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c.(*driver.Client)
}

func TestDriverConformance(t *testing.T) {
	for _, auth := range []string{"session", "basic"} {
		t.Run(auth, func(t *testing.T) {
			bmctest.Run(t, func(t *testing.T) bmctest.Rig { return rig(t, auth) })
		})
	}
}

func rig(t *testing.T, auth string) bmctest.Rig {
	b, m := start(t)
	b.SetFaults(redfish.Faults{PowerDelay: 5 * time.Millisecond})
	d := &driver.Driver{Poll: 5 * time.Millisecond}
	return bmctest.Rig{
		Open: func(_ *testing.T, overrides map[string]string) (bmc.Client, error) {
			info := b.DriverInfo()
			info["redfish_auth_type"] = auth
			maps.Copy(info, overrides)
			return d.Open(bmc.Target{Node: "n1", DriverInfo: info})
		},
		Starts:        m.count,
		Unreachable:   map[string]string{"redfish_address": "https://127.0.0.1:1"},
		WrongPassword: map[string]string{"redfish_password": "wrong"},
		Bad:           map[string]string{"redfish_address": ""},
		Hang:          func(*testing.T) map[string]string { b.SetFaults(redfish.Faults{Hang: true}); return nil },
		Stuck:         func(*testing.T) map[string]string { b.SetFaults(redfish.Faults{Stuck: true}); return nil },
	}
}

func TestDriverLivesWithServices(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults redfish.Faults
		want   []string // effects, sessions left out
	}{
		{"fails after the effect", redfish.Faults{FailAfter: 1}, []string{"On", "boot Pxe Once"}},
		{"500 on a boot mode", redfish.Faults{BootMode500: true}, []string{"On", "boot Pxe Once"}},
		{"busy with Retry-After", redfish.Faults{Busy: 2}, []string{"On", "boot Pxe Once"}},
		{"no sessions", redfish.Faults{NoSessions: true}, []string{"On", "boot Pxe Once"}},
		{"slow power", redfish.Faults{PowerDelay: 50 * time.Millisecond}, []string{"On", "boot Pxe Once"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, _ := start(t)
			cl := openClient(t, b, nil)
			b.SetFaults(c.faults)
			if err := cl.SetPower(t.Context(), bmc.PowerOn); err != nil {
				t.Errorf("SetPower: %v", err)
			}
			if err := cl.SetBootDevice(t.Context(), bmc.Boot{Device: bmc.DevicePXE, Mode: bmc.ModeUEFI}); err != nil {
				t.Errorf("SetBootDevice: %v", err)
			}
			got := slices.DeleteFunc(b.Effects(), func(e string) bool { return strings.HasPrefix(e, "session") })
			if !slices.Equal(got, c.want) {
				t.Errorf("effects %q, want %q", got, c.want)
			}
		})
	}
}

func TestDriverErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults redfish.Faults
		info   map[string]string
		want   fault.Kind
	}{
		{"garbage", redfish.Faults{Garbage: true}, nil, fault.Corrupt},
		{"huge", redfish.Faults{Huge: true}, nil, fault.TooLarge},
		{"redirect", redfish.Faults{RedirectTo: "https://127.0.0.2:9"}, nil, fault.Denied},
		{"401", redfish.Faults{Unauthorized: true}, nil, fault.Unauthenticated},
		{"500", redfish.Faults{FailChanges: 9}, nil, fault.Unavailable},
		{"certificate", redfish.Faults{}, map[string]string{"redfish_pin": ""}, fault.Unauthenticated},
		{"other pin", redfish.Faults{}, map[string]string{"redfish_pin": strings.Repeat("ab", 32)}, fault.Unauthenticated},
		{"no such system", redfish.Faults{}, map[string]string{"redfish_system_id": "/redfish/v1/Systems/9"}, fault.NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, m := start(t)
			b.SetFaults(c.faults)
			err := openClient(t, b, c.info).SetPower(t.Context(), bmc.PowerOn)
			if !fault.Is(err, c.want) {
				t.Errorf("SetPower: %v is %v, want %v", err, fault.KindOf(err), c.want)
			}
			if m.count() != 0 {
				t.Error("the machine was started")
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestCertificateAuthority(t *testing.T) {
	b, _ := start(t)
	c := openClient(t, b, map[string]string{"redfish_pin": "", "redfish_verify_ca": b.CertPEM()})
	if _, err := c.Power(t.Context()); err != nil {
		t.Errorf("with the CA: %v", err)
	}
}

func TestSessionIsReopened(t *testing.T) {
	b, _ := start(t)
	c := openClient(t, b, nil)
	if _, err := c.Power(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.EndSessions()
	if err := c.SetPower(t.Context(), bmc.PowerOn); err != nil {
		t.Errorf("after the session ended: %v", err)
	}
	if n := len(b.Effects("session opened")); n != 2 {
		t.Errorf("%d sessions were opened, want 2", n)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if left := b.Sessions(); len(left) != 0 {
		t.Errorf("sessions left open: %v", left)
	}
}

// TestFence is the story of two owners: the old one's request is on the wire when the new one takes over.
func TestFence(t *testing.T) {
	b, m := start(t)
	var uri string
	oldOwner := openClient(t, b, nil)
	fenced, err := oldOwner.Fence(t.Context(), nil, func(_ context.Context, u string) error {
		uri = u
		return nil
	})
	if err != nil || !fenced || uri == "" {
		t.Fatalf("Fence = %v, %v with URI %q", fenced, err, uri)
	}
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	b.SetFaults(redfish.Faults{HoldChanges: hold, Held: held})
	late := make(chan error, 1)
	go func() { late <- oldOwner.SetPower(t.Context(), bmc.PowerOn) }()

	<-held
	newOwner := openClient(t, b, nil)
	taken := make(chan error, 1)
	b.SetFaults(redfish.Faults{}) // the request that is held stays held; a later one passes
	go func() {
		_, err := newOwner.Fence(t.Context(), []string{uri}, func(context.Context, string) error { return nil })
		taken <- err
	}()
	if err := <-taken; err != nil {
		t.Fatalf("new owner's Fence: %v", err)
	}
	close(hold)
	if err := <-late; !fault.Is(err, fault.Unavailable) {
		t.Errorf("the old owner's late request: %v, want unavailable", err)
	}
	if m.count() != 0 {
		t.Error("the late request started the machine")
	}
	if err := oldOwner.SetPower(t.Context(), bmc.PowerOn); err != nil {
		t.Errorf("a call that is made anew: %v", err)
	}
}

func TestFenceRecordsFirst(t *testing.T) {
	b, _ := start(t)
	c := openClient(t, b, nil)
	_, err := c.Fence(t.Context(), nil, func(context.Context, string) error { return fault.New(fault.Unavailable, "", "journal is full") })
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("Fence: %v", err)
	}
	if left := b.Sessions(); len(left) != 0 {
		t.Errorf("a session that was not recorded stays: %v", left)
	}
	for _, r := range b.Requests() {
		if r.Method == http.MethodPost && r.Path != "/redfish/v1/SessionService/Sessions" {
			t.Errorf("a request was sent: %+v", r)
		}
	}
}
