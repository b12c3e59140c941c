package apply

import (
	"fmt"
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestALiveClientSessionWasForgotten: when the table is full of sessions that ended, one of those goes; when all are live, a
// new one is refused, for a live one's answers and locks are counted on.
func TestALiveClientSessionWasForgotten(t *testing.T) {
	w := newWorld(t)
	agent := w.agent("r1", 1)
	id := w.create(1)
	ask := func(client string, seq uint64) command.Result {
		return w.request(command.SetMaintenance{Node: id, On: seq%2 == 0}, command.RequestID{Client: client, Seq: seq})
	}
	fill := func(what string, n int, ended bool) {
		for i := range n { // used in the order of their names
			w.s.Clients.Put(&w.s.Log, &state.Client{ID: fmt.Sprintf("%s%05d", what, i), Actor: w.actor, High: 1, UsedAt: w.s.Root.Elapsed, Ended: ended})
		}
	}
	fill("old", 1, true)
	w.ticks(state.ClientIdle/2, agent)
	fill("ended", state.MaxClients-2, true)
	w.ticks(state.ClientIdle/4, agent)
	ask("live", 1)
	lock := w.request(command.AcquireLock{Node: id, Session: "live", Holder: "operator alice"}, command.RequestID{Client: "live", Seq: 2})
	w.ticks(state.ClientIdle/2, agent)
	if res := ask("new", 1); res.Err != nil {
		t.Fatal(res.Err)
	}
	if w.s.Client("old00000") != nil || w.s.Client("ended00000") == nil || w.s.Clients.Len() != state.MaxClients {
		t.Error("it was not the session that had ended and was not used for the longest time that went")
	}
	if c := w.s.Client("live"); c == nil || c.Ended || w.node(id).Lock.Token != lock.Token {
		t.Errorf("the live session is %+v", c)
	}

	fill("ended", state.MaxClients-2, false)
	if res := ask("newer", 1); !fault.Is(res.Err, fault.Busy) {
		t.Errorf("a session too many: %v", res.Err)
	}
	if res := ask("live", 3); res.Err != nil {
		t.Errorf("a session that is there: %v", res.Err)
	}
	w.ticks(state.ClientIdle, agent)
	if res := ask("newer", 1); res.Err != nil {
		t.Errorf("after others have ended: %v", res.Err)
	}
}
