package apply

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

func uris(list []command.BMCSession) (out []string) {
	for _, b := range list {
		out = append(out, b.URI)
	}
	return out
}

// TestBMCSessions: only the owner's live session has one recorded; the list is bounded, survives a snapshot and goes with
// the node or its BMC.
func TestBMCSessions(t *testing.T) {
	w := newWorld(t)
	sessions := map[string]string{"r1": w.agent("r1", 1), "r2": w.agent("r2", 1)}
	id := w.create(1)
	owner := w.node(id).Owner
	other := map[string]string{"r1": "r2", "r2": "r1"}[owner]
	opened := func(agent, uri string) command.RecordBMCSession {
		return command.RecordBMCSession{Node: id, Session: sessions[agent], Agent: agent, URI: uri, Opened: true}
	}
	is := func(want ...string) {
		t.Helper()
		if got := uris(w.s.View().BMCSessions(id)); !slices.Equal(got, want) {
			t.Fatalf("recorded %v, want %v", got, want)
		}
	}
	empty := w.s.Hash()
	w.refused(opened(other, "/s/0"), fault.IllegalState)
	w.refused(opened(owner, "https://elsewhere/s/0"), fault.Invalid)
	w.refused(opened(owner, "/"+string(make([]byte, state.MaxBMCURI))), fault.Invalid)
	w.refused(command.RecordBMCSession{Node: id, Session: "gone", Agent: owner, URI: "/s/0", Opened: true}, fault.Expired)
	w.refused(command.RecordBMCSession{Node: "none", Session: sessions[owner], Agent: owner, URI: "/s/0", Opened: true}, fault.NotFound)
	is()
	w.must(opened(owner, "/s/1"))
	w.must(opened(owner, "/s/2"))
	w.must(opened(owner, "/s/2")) // said again
	is("/s/1", "/s/2")
	if w.s.Hash() == empty {
		t.Error("the hash does not see the sessions")
	}

	// The other agent takes over: until the first one has let go nobody gets a new session recorded.
	w.must(command.MoveNodes{Moves: []command.Move{{Node: id, From: owner, To: other}}})
	w.refused(opened(owner, "/s/3"), fault.IllegalState)
	w.refused(opened(other, "/s/4"), fault.IllegalState)
	w.must(command.HandoverAck{Node: id, Agent: owner, Epoch: w.node(id).Epoch})
	w.must(opened(other, "/s/4"))
	is("/s/1", "/s/2", "/s/4")
	w.must(command.RecordBMCSession{Node: id, Session: sessions[other], Agent: other, URI: "/s/1"})
	w.must(command.RecordBMCSession{Node: id, Session: "gone", Agent: owner, URI: "/s/2"}) // a fact, whoever says it
	w.must(command.RecordBMCSession{Node: id, URI: "/s/2"})
	is("/s/4")

	for i := range state.MaxBMCSessions {
		w.must(opened(other, fmt.Sprintf("/t/%d", i)))
	}
	if got := uris(w.s.View().BMCSessions(id)); len(got) != state.MaxBMCSessions || got[0] != "/t/0" {
		t.Fatalf("recorded %v, want the newest %d", got, state.MaxBMCSessions)
	}
	var out bytes.Buffer
	if err := w.s.View().WriteSnapshot(&out); err != nil {
		t.Fatal(err)
	}
	restored, err := state.ReadSnapshot(&out)
	if err != nil || restored.Hash() != w.s.Hash() || len(restored.View().BMCSessions(id)) != state.MaxBMCSessions {
		t.Fatalf("the snapshot lost them: %v", err)
	}

	n := *w.node(id)
	n.DriverInfo = map[string]string{"address": "10.0.0.2"}
	w.must(command.UpdateNode{Node: n, Fields: []string{"driver_info"}})
	if len(w.s.View().BMCSessions(id)) == 0 {
		t.Error("they were forgotten although the BMC is the same")
	}
	n.DriverInfo = map[string]string{"redfish_address": "https://new"}
	w.must(command.UpdateNode{Node: n, Fields: []string{"driver_info"}})
	is()
	w.must(opened(other, "/s/5"))
	w.must(command.DeleteNode{Node: id})
	is()
	if w.s.BMCs.Len() != 0 {
		t.Error("sessions of a node that is gone")
	}
}
