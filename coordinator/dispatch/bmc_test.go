package dispatch

import (
	"slices"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestBMCSessions: a session is confirmed when it is recorded; the node's next owner is told of it, the owner itself is
// not, and an agent that lost the node is refused.
func TestBMCSessions(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.assigned(id)
	say := func(x *agent, call uint64, uri string, opened bool) {
		x.send(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_BmcSession{BmcSession: &farrierv1.BMCSession{Call: call, Node: string(id), Uri: uri, Opened: opened}}})
	}
	reply := func(x *agent, call uint64) *farrierv1.ErrorDetail {
		return x.await("reply", func(m *farrierv1.CoordinatorMessage) bool { return m.GetBmcSessionReply().GetCall() == call }).GetBmcSessionReply().GetError()
	}
	say(a, 1, "/sessions/1", true)
	if e := reply(a, 1); e != nil {
		t.Fatalf("not recorded: %v", e)
	}
	say(a, 2, "/sessions/"+string(make([]byte, 600)), true)
	if e := reply(a, 2); e.GetKind() != fault.TooLarge.String() {
		t.Errorf("a long URI: %v", e)
	}
	b := r.agent("b").connect()
	r.apply(command.MoveNodes{Moves: []command.Move{{Node: id, From: "a", To: "b"}}})
	say(a, 3, "/sessions/2", true)
	if e := reply(a, 3); e.GetKind() != fault.IllegalState.String() {
		t.Errorf("a session of an agent that lost the node: %v", e)
	}
	r.apply(command.HandoverAck{Node: id, Agent: "a", Epoch: r.get(id).Epoch})
	if got := b.assigned(id).GetBmcSessions(); !slices.Equal(got, []string{"/sessions/1"}) {
		t.Errorf("the new owner is told of %v", got)
	}
	say(b, 1, "/sessions/3", true)
	if e := reply(b, 1); e != nil {
		t.Fatalf("not recorded: %v", e)
	}
	say(b, 0, "/sessions/1", false) // no reply is wanted
	say(b, 2, "/sessions/3", true)  // said again, after it
	if e := reply(b, 2); e != nil {
		t.Fatalf("not recorded again: %v", e)
	}
	n := *r.get(id)
	n.Name = "renamed"
	r.apply(command.UpdateNode{Node: n, Fields: []string{"name"}})
	if got := b.assigned(id).GetBmcSessions(); len(got) != 0 {
		t.Errorf("after the end of the earlier one the owner is told of %v", got)
	}
	if got := r.model.View().BMCSessions(id); len(got) != 1 || got[0].Agent != "b" {
		t.Errorf("recorded %v", got)
	}
}
