package node

import (
	"testing"

	"github.com/farrier-project/farrier/coordinator/lifecycle"
)

// TestPowerWatch covers every state, in and out of maintenance.
func TestPowerWatch(t *testing.T) {
	read := map[lifecycle.State]bool{
		lifecycle.Manageable: true, lifecycle.Available: true, lifecycle.Active: true, lifecycle.Error: true, lifecycle.Rescue: true,
		lifecycle.DeployFailed: true, lifecycle.CleanFailed: true, lifecycle.InspectFailed: true, lifecycle.RescueFailed: true,
		lifecycle.UnrescueFailed: true, lifecycle.ServiceFailed: true,
	}
	for _, s := range lifecycle.States() {
		n := Node{Provision: s}
		want := PowerIgnored
		if read[s] {
			want = PowerRead
		}
		if got := n.PowerWatch(); got != want {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
		if n.Maintenance = true; n.PowerWatch() != PowerIgnored {
			t.Errorf("%s in maintenance is %q", s, n.PowerWatch())
		}
		if n.Fault = FaultPower; n.PowerWatch() != PowerRecovery {
			t.Errorf("%s with a power failure is %q", s, n.PowerWatch())
		}
	}
}
