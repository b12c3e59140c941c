package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
)

// TestRandomCommands draws commands, sensible and not, and checks after each that the invariants hold, that a
// refused command changed nothing, and that tokens only rise; at the end that another replica and a restored
// snapshot are equal.
func TestRandomCommands(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		set := command.DefaultSettings()
		set.MaxDeploy, set.MaxClean, set.BootTries = 2, 2, 2
		w.must(command.UpdateSettings{Settings: set})
		w.agent("r1", 1)
		w.agent("r2", 1)
		var tokens lock.Token
		for i := range rapid.IntRange(10, 150).Draw(rt, "commands") {
			body := draw(rt, w)
			tables := w.s.tableSums()
			res := w.try(body)
			if res.Err != nil && !slices.Equal(tables, w.s.tableSums()) && w.s.alarms.len() == 0 {
				rt.Fatalf("command %d, %T, was refused (%v) and changed something", i, body, res.Err)
			}
			if w.s.alarms.len() > 0 && anyAlarm(w, "failed inside") {
				rt.Fatalf("command %d, %+v, panicked: %s", i, body, alarmText(w))
			}
			if err := w.s.invariants(); err != nil {
				rt.Fatalf("after command %d, %T %+v: %v", i, body, body, err)
			}
			if now := lock.MakeToken(w.s.root.cluster.Generation, w.s.root.cluster.Tokens); now < tokens {
				rt.Fatalf("the token fell from %s to %s", tokens, now)
			} else {
				tokens = now
			}
		}
		replica := New()
		for i, c := range w.log {
			replica.Apply(uint64(i+1), c)
			if i%10 == 0 {
				replica.View()
			}
		}
		if replica.Hash() != w.s.Hash() {
			rt.Fatal("a replica of the same log has another hash")
		}
		var buf bytes.Buffer
		if err := w.s.View().WriteSnapshot(&buf); err != nil {
			rt.Fatal(err)
		}
		restored, err := ReadSnapshot(&buf)
		if err != nil {
			rt.Fatal(err)
		}
		if restored.Hash() != w.s.Hash() {
			rt.Fatal("the restored state has another hash")
		}
		if err := restored.invariants(); err != nil {
			rt.Fatalf("restored: %v", err)
		}
	})
}

// tableSums are the hashes of what commands change, without the root's counters.
func (s *State) tableSums() []uint64 {
	return []uint64{
		s.nodes.sum, s.ports.sum, s.flows.sum, s.inventories.sum, s.sessions.sum, s.agents.sum, s.rings.sum,
		s.clients.sum, s.answers.sum, s.joinTokens.sum, s.members.sum, s.events.sum, s.root.flows, s.root.cluster.Tokens,
		uint64(s.root.deploys), uint64(s.root.cleans), uint64(s.nodeNames.len()), uint64(s.deadlines.len()),
	}
}

func anyAlarm(w *world, part string) bool { return bytes.Contains([]byte(alarmText(w)), []byte(part)) }

func alarmText(w *world) string {
	var all string
	w.s.alarms.scan(func(a *Alarm) bool { all += a.Text + "\n"; return true })
	return all
}

var drawnVerbs = []string{"manage", "provide", "inspect", "clean", "active", "rebuild", "deleted", "abort", "unhold", "rescue"}

// draw draws a command; most are reports that keep work going.
func draw(rt *rapid.T, w *world) command.Body {
	const nodes = 4
	id := nodeID(rapid.IntRange(0, nodes-1).Draw(rt, "node"))
	n := w.s.node(id)
	kind := rapid.IntRange(0, 39).Draw(rt, "kind")
	if n == nil {
		for i := range nodes {
			if nodeID(i) == id {
				return createBody(i)
			}
		}
	}
	name := rapid.SampledFrom([]string{"r1", "r2", "r3"}).Draw(rt, "agent")
	switch {
	case kind < 12 && w.open(id):
		return w.done(id)
	case kind < 14 && w.open(id):
		return w.failure(id, rapid.Bool().Draw(rt, "retryable"))
	case kind < 17 && n.FlowOpen:
		edge := rapid.SampledFrom([]string{"first_contact", "silent", "heard", "second_claim", "unexpected_boot"}).Draw(rt, "edge")
		return command.Edge{Node: id, Flow: n.Flow, Boot: w.flow(id).Boot.ID, Kind: edge, KeyHash: "k-" + w.flow(id).Boot.ID}
	case kind < 24:
		return w.verb(id, rapid.SampledFrom(drawnVerbs).Draw(rt, "verb"))
	case kind < 26:
		return drawAgent(rt, w, name)
	case kind < 29:
		return drawTick(rt, w)
	case kind < 31:
		return drawLock(rt, w, n)
	case kind < 33:
		return command.SetMaintenance{Node: id, On: rapid.Bool().Draw(rt, "on"), Reason: "test"}
	case kind < 34:
		return command.SetPower{Node: id, Target: rapid.SampledFrom([]string{"power on", "power off", "rebooting", "soft rebooting", "sideways"}).Draw(rt, "target")}
	case kind < 35:
		return command.DeleteNode{Node: id}
	case kind < 36:
		return command.UpdateNode{Node: node.Node{ID: id, Name: name, Group: "default", Driver: "redfish"}, Fields: []string{rapid.SampledFrom([]string{"name", "group", "driver", "retired", "nonsense"}).Draw(rt, "field")}}
	case kind < 37:
		return command.WaiveWipe{Node: id, Reason: "test"}
	case kind < 38:
		return command.HandoverAck{Node: id, Agent: n.PrevOwner, Epoch: n.Epoch}
	case kind < 39 && n.FlowOpen:
		return timeoutOf(w, id)
	default:
		return command.NewGeneration{Reason: "test"}
	}
}

func timeoutOf(w *world, id node.ID) command.Body {
	f := w.flow(id)
	return command.Timeout{Node: id, Flow: f.ID, Step: f.Cur, Attempt: f.Step().Attempt.N, Deadline: f.Step().Attempt.Deadline}
}

func drawAgent(rt *rapid.T, w *world, name string) command.Body {
	incarnation := uint64(1)
	a := w.s.agent(name)
	if a != nil {
		incarnation = a.Incarnation + uint64(rapid.IntRange(0, 1).Draw(rt, "later"))
	}
	switch rapid.IntRange(0, 4).Draw(rt, "agent command") {
	case 0:
		return command.SetDrain{Agent: name, On: rapid.Bool().Draw(rt, "drain")}
	case 1:
		if a != nil && a.Session != "" {
			return command.CloseSession{Session: a.Session, Reason: "test"}
		}
	case 2:
		if rapid.IntRange(0, 3).Draw(rt, "really") == 0 {
			return command.RemoveAgent{Agent: name}
		}
	}
	return command.OpenSession{
		Session: fmt.Sprintf("s%d", w.index), Agent: name, Group: "default", Drivers: []string{"fake-hardware", "redfish"}, Weight: 1,
		Journal: "j-" + name, Incarnation: incarnation, Level: Level,
	}
}

func drawTick(rt *rapid.T, w *world) command.Body {
	t := command.Tick{D: time.Duration(rapid.IntRange(-1, 3).Draw(rt, "half seconds")) * time.Second / 2, FirstOfTerm: rapid.IntRange(0, 9).Draw(rt, "first") == 0}
	w.s.sessions.scan(func(se *Session) bool {
		if rapid.Bool().Draw(rt, "renew") {
			t.Renew = append(t.Renew, se.ID)
		}
		return true
	})
	return t
}

func drawLock(rt *rapid.T, w *world, n *node.Node) command.Body {
	session := ""
	if a := w.s.agent(n.Owner); a != nil {
		session = a.Session
	}
	switch rapid.IntRange(0, 2).Draw(rt, "lock command") {
	case 0:
		return command.AcquireLock{Node: n.ID, Session: session, Holder: "agent " + n.Owner, Task: "t", Purpose: "test"}
	case 1:
		return command.ReleaseLock{Node: n.ID, Token: n.Lock.Token}
	default:
		return command.BreakLock{Node: n.ID, Reason: "test"}
	}
}
