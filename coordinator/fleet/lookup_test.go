package fleet_test

import (
	"testing"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

// TestANodeIsFoundByWhatIsOnItsLabel: by its MAC, and by the beginning of its id.
func TestANodeIsFoundByWhatIsOnItsLabel(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	n := world.MustCreate(t, w.Nodes("c1"), world.Web(1))
	twin := world.Web(2)
	twin.Id = n.GetId()[:8] + "-0000-4000-8000-000000000000"
	get := func(name string) (*farrierv1.Node, error) {
		res, err := w.Nodes("c1").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: name})
		return res.GetNode(), err
	}
	for _, name := range []string{"web-1", n.GetId(), n.GetId()[:8], n.GetPorts()[0].GetAddress()} {
		if got, err := get(name); err != nil || got.GetId() != n.GetId() {
			t.Errorf("%s: %v, %v", name, got.GetName(), err)
		}
	}
	world.MustCreate(t, w.Nodes("c1"), twin)
	for name, want := range map[string]fault.Kind{n.GetId()[:8]: fault.Ambiguous, n.GetId()[:3]: fault.NotFound, "52:54:00:ff:ff:ff": fault.NotFound, "cafecafecafe": fault.NotFound} {
		_, err := get(name)
		world.WantKind(t, err, want)
	}
}

// TestAFilterThatMatchesNothingBecauseItIsWrong: an empty answer looks like an answer.
func TestAFilterThatMatchesNothingBecauseItIsWrong(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	_, err := w.Nodes("c1").ListNodes(t.Context(), &farrierv1.ListNodesRequest{Filter: &farrierv1.NodeFilter{ProvisionState: []string{"availble"}}})
	world.WantKind(t, err, fault.Invalid)
}

// TestALiveAgentWasRemovedWithoutAQuestion: only a new token brings it back.
func TestALiveAgentWasRemovedWithoutAQuestion(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	agents := fc.NewAgentServiceClient(w.As(identity.RoleOperator, "alice"), w.URL["c1"])
	if _, err := agents.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a1"}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a live agent: %v", err)
	}
	if _, err := agents.DrainAgent(t.Context(), &farrierv1.DrainAgentRequest{Agent: "a1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := agents.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a1"}); err != nil {
		t.Errorf("drained, and without nodes: %v", err)
	}
}

// TestAgentThatNeverCameCouldNotBeRemoved: it had joined, and had a certificate.
func TestAgentThatNeverCameCouldNotBeRemoved(t *testing.T) {
	w := world.New(t, []string{"c1"})
	w.As(identity.RoleAgent, "a9")
	c := fc.NewAgentServiceClient(w.As(identity.RoleOperator, "alice"), w.URL["c1"])
	if _, err := c.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a9"}); err != nil {
		t.Error(err)
	}
	_, err := c.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a9"})
	world.WantKind(t, err, fault.NotFound)
}
