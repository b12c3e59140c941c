package scenario

import (
	"context"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/test/lab/redfish"
	"github.com/farrier-project/farrier/test/lab/site"
)

// TestPowerThatNobodyOrdered: what is done to machines and their BMCs behind Farrier's back is seen, told and adopted, and never
// undone.
func TestPowerThatNobodyOrdered(t *testing.T) {
	k := startSite(t, site.Config{
		Coordinators: 1, Agents: 1, Machines: 2, AgentSettings: "power_sync: {interval: 200ms, recovery: 200ms}\n",
	})
	m, other := k.Machines[0], k.Machines[1]
	for _, x := range k.Machines {
		k.enrol(x)
		k.verb(x.Name, "manage")
		k.reach(x.Name, "manageable", nil)
	}
	k.button(m)
	k.mute(m)
	k.ofAPerson(m, other)
}

// becomes waits until the node is as described.
func (k *kit) becomes(m *site.Machine, what string, so func(n *farrierv1.Node) bool) *farrierv1.Node {
	k.t.Helper()
	var n *farrierv1.Node
	k.until(m.Name+" "+what, func(context.Context) bool {
		n = k.node(m.Name)
		return so(n)
	})
	return n
}

func (k *kit) hasPower(m *site.Machine, power string) *farrierv1.Node {
	k.t.Helper()
	return k.becomes(m, "has "+power, func(n *farrierv1.Node) bool { return n.GetPowerState() == power && !n.GetMaintenance() })
}

func (k *kit) press(m *site.Machine, press func() error) {
	k.t.Helper()
	if err := press(); err != nil {
		k.t.Fatal(err)
	}
}

// button is a hand on the button, between two verbs that still do what they say.
func (k *kit) button(m *site.Machine) {
	before := len(effects(m.BMC))
	k.hasPower(m, "power off")
	k.press(m, m.PowerOn)
	n := k.hasPower(m, "power on")
	if n.GetTargetPowerState() != "" || n.GetLastError() != "" || n.GetFlow().GetState() == "open" {
		k.t.Errorf("the node is %v", n)
	}
	k.press(m, m.PowerOff)
	k.hasPower(m, "power off")
	if did := effects(m.BMC); len(did) != before || m.Powered() {
		k.t.Errorf("what was seen was answered with %+v, powered %v", did[before:], m.Powered())
	}
	list := k.done("event", "list", "--node", m.Name, "--type", "node.power_state").out
	if n := strings.Count(list, "seen"); n != 2 {
		k.t.Errorf("%d events say that it was seen:\n%s", n, list)
	}
	k.done("node", "power", "on", m.Name, "--wait")
	k.hasPower(m, "power on")
	if list := k.done("event", "list", "--node", m.Name, "--type", "node.power_state").out; strings.Count(list, "seen") != 2 {
		k.t.Errorf("what was done is said to have been seen:\n%s", list)
	}
}

// mute is a BMC that does not answer, and answers again.
func (k *kit) mute(m *site.Machine) {
	m.BMC.SetFaults(redfish.Faults{Garbage: true})
	n := k.faulty(m)
	if !strings.HasPrefix(n.GetMaintenanceReason(), "power failure: ") || n.GetLastError() != n.GetMaintenanceReason() || n.GetPowerState() != "" {
		k.t.Errorf("reason %q, last error %q, power %q", n.GetMaintenanceReason(), n.GetLastError(), n.GetPowerState())
	}
	if show := k.done("node", "show", m.Name).out; !strings.Contains(show, "power failure") {
		k.t.Errorf("node show does not say it:\n%s", show)
	}
	m.BMC.SetFaults(redfish.Faults{})
	if n := k.hasPower(m, "power on"); n.GetFault() != "" || n.GetLastError() != "" {
		k.t.Errorf("fault %q, last error %q outlive it", n.GetFault(), n.GetLastError())
	}
}

func (k *kit) faulty(m *site.Machine) *farrierv1.Node {
	k.t.Helper()
	return k.becomes(m, "has a power failure", func(n *farrierv1.Node) bool { return n.GetMaintenance() && n.GetFault() == "power failure" })
}

// ofAPerson is a person's maintenance: neither a BMC that dies nor one that answers changes it. The other machine tells the time.
func (k *kit) ofAPerson(m, other *site.Machine) {
	k.done("node", "maintenance", "set", m.Name, "--reason", "new board")
	before := k.node(m.Name)
	for _, x := range k.Machines {
		x.BMC.SetFaults(redfish.Faults{Garbage: true})
	}
	k.faulty(other)
	for _, x := range k.Machines {
		x.BMC.SetFaults(redfish.Faults{})
	}
	k.press(m, m.PowerOff)
	k.hasPower(other, "power off")
	if n := k.node(m.Name); n.GetVersion() != before.GetVersion() || n.GetMaintenanceReason() != "new board" || n.GetFault() != "" {
		k.t.Errorf("a person's maintenance was touched: %v", n)
	}
	k.done("node", "maintenance", "unset", m.Name)
	k.hasPower(m, "power off")
}
