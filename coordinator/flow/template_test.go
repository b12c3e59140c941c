package flow

import (
	"slices"
	"testing"

	"github.com/farrier-project/farrier/pkg/step"
)

// TestPowerFlowsAreSets: a soft reboot was one step, and started over when its agent died at its end: the tenant's system
// went down twice. Every power flow is made of sets, each found done when it is asked for again.
func TestPowerFlowsAreSets(t *testing.T) {
	for target, want := range map[string][]string{
		"power on":       {StepPowerOn},
		"power off":      {StepPowerOff},
		"rebooting":      {StepPowerOff, StepPowerOn},
		"soft power off": {"power.soft_power_off"},
		"soft rebooting": {"power.soft_power_off", StepPowerOn},
	} {
		steps, err := Phase1(Spec{Kind: Power, Target: target})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, st := range steps {
			got = append(got, st.FullName())
			if st.Class != step.Set {
				t.Errorf("%s: step %s is of class %s", target, st.FullName(), st.Class)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", target, got, want)
		}
	}
}
