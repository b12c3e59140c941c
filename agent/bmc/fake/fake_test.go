package fake_test

import (
	"maps"
	"testing"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/bmc/bmctest"
	"github.com/farrier-project/farrier/agent/bmc/fake"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestConformance(t *testing.T) {
	bmctest.Run(t, func(t *testing.T) bmctest.Rig {
		d := fake.New()
		with := func(v string) map[string]string { return map[string]string{"fake_fault": v} }
		return bmctest.Rig{
			Open: func(_ *testing.T, overrides map[string]string) (bmc.Client, error) {
				info := map[string]string{"fake_power_delay": "5ms"}
				maps.Copy(info, overrides)
				return d.Open(bmc.Target{Node: "n1", DriverInfo: info})
			},
			Starts:        func() int { return d.Starts("n1") },
			Unreachable:   with("unreachable"),
			WrongPassword: with("password"),
			Bad:           with("no such fault"),
			Hang:          func(*testing.T) map[string]string { return with("hang") },
			Stuck:         func(*testing.T) map[string]string { return with("stuck") },
		}
	})
}

func TestFailFirst(t *testing.T) {
	d := fake.New()
	c, err := d.Open(bmc.Target{Node: "n", DriverInfo: map[string]string{"fake_fail_first": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []fault.Kind{fault.Unavailable, fault.Unavailable} {
		if err := c.SetPower(t.Context(), bmc.PowerOn); !fault.Is(err, want) {
			t.Errorf("call %d: %v, want %v", i, err, want)
		}
	}
	if err := c.SetPower(t.Context(), bmc.PowerOn); err != nil {
		t.Errorf("the third call: %v", err)
	}
}
