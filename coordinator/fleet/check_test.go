package fleet_test

import (
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/test/world"
)

// TestValidateNode: each thing that is missing is told of at its interface, with what to do, and nothing is changed.
func TestValidateNode(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	c := w.Nodes("c1")
	for i, tt := range []struct {
		spoil func(*farrierv1.Node)
		want  map[string]string // what is wrong, by interface: a part of the help
	}{
		{func(*farrierv1.Node) {}, nil},
		{func(n *farrierv1.Node) { delete(n.DriverInfo, "redfish_password") }, map[string]string{"power": "redfish_password="}},
		{func(n *farrierv1.Node) { n.Ports = nil }, map[string]string{"boot": "farrier port create"}},
		{func(n *farrierv1.Node) { n.Retired = true }, map[string]string{"deploy": "--retired=false"}},
	} {
		n := world.Web(i)
		tt.spoil(n)
		n = world.MustCreate(t, c, n)
		res, err := c.ValidateNode(t.Context(), &farrierv1.ValidateNodeRequest{Node: n.GetName()})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.GetChecks()) != 4 {
			t.Errorf("%s: checks %v", n.GetName(), res.GetChecks())
		}
		for _, check := range res.GetChecks() {
			want, bad := tt.want[check.GetInterface()]
			if bad != (check.GetError() != nil) || bad && !strings.Contains(check.GetError().GetHelp(), want) {
				t.Errorf("%s: %v, want help %q", n.GetName(), check, want)
			}
		}
		after, err := c.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: n.GetId()})
		if err != nil || after.GetNode().GetVersion() != n.GetVersion() {
			t.Errorf("%s: version %d, then %d, %v", n.GetName(), n.GetVersion(), after.GetNode().GetVersion(), err)
		}
	}
	w.Apply(t, command.CloseSession{Session: "s-a1", Reason: "test"})
	res, err := c.ValidateNode(t.Context(), &farrierv1.ValidateNodeRequest{Node: "web-0"})
	if err != nil || res.GetChecks()[1].GetError().GetKind() != "no_agent" {
		t.Errorf("without its agent: %v, %v", res.GetChecks(), err)
	}
}
