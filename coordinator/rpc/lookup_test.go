package rpc

import (
	"testing"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// TestANodeIsFoundByWhatIsOnItsLabel: by its MAC, and by the beginning of its id.
func TestANodeIsFoundByWhatIsOnItsLabel(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	n := mustCreate(t, w.nodes("c1"), web(1))
	twin := web(2)
	twin.Id = n.GetId()[:8] + "-0000-4000-8000-000000000000"
	get := func(name string) (*farrierv1.Node, error) {
		res, err := w.nodes("c1").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: name})
		return res.GetNode(), err
	}
	for _, name := range []string{"web-1", n.GetId(), n.GetId()[:8], n.GetPorts()[0].GetAddress()} {
		if got, err := get(name); err != nil || got.GetId() != n.GetId() {
			t.Errorf("%s: %v, %v", name, got.GetName(), err)
		}
	}
	mustCreate(t, w.nodes("c1"), twin)
	for name, want := range map[string]fault.Kind{n.GetId()[:8]: fault.Ambiguous, n.GetId()[:3]: fault.NotFound, "52:54:00:ff:ff:ff": fault.NotFound, "cafecafecafe": fault.NotFound} {
		_, err := get(name)
		wantKind(t, err, want)
	}
}

// TestAFilterThatMatchesNothingBecauseItIsWrong: an empty answer looks like an answer.
func TestAFilterThatMatchesNothingBecauseItIsWrong(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	_, err := w.nodes("c1").ListNodes(t.Context(), &farrierv1.ListNodesRequest{Filter: &farrierv1.NodeFilter{ProvisionState: []string{"availble"}}})
	wantKind(t, err, fault.Invalid)
	for what, req := range map[string]*farrierv1.WatchRequest{
		"an unknown type": {Types: []string{"foo"}}, "a position beyond the log": {After: &farrierv1.Position{Index: 1 << 40}},
	} {
		s := watching(t, w, "c1", req)
		if s.Receive() {
			t.Errorf("%s: %v", what, s.Msg())
		}
		wantKind(t, s.Err(), fault.Invalid)
	}
}

// TestALiveAgentWasRemovedWithoutAQuestion: only a new token brings it back.
func TestALiveAgentWasRemovedWithoutAQuestion(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	agents := fc.NewAgentServiceClient(w.as(identity.RoleOperator, "alice"), w.url["c1"])
	if _, err := agents.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a1"}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a live agent: %v", err)
	}
	if _, err := agents.DrainAgent(t.Context(), &farrierv1.DrainAgentRequest{Agent: "a1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := agents.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a1"}); err != nil {
		t.Errorf("drained, and without nodes: %v", err)
	}
	for _, x := range []*farrierv1.Agent{{State: "dead", Nodes: 3}} {
		if err := mayRemove(x); err != nil {
			t.Errorf("%v: %v", x, err)
		}
	}
}
