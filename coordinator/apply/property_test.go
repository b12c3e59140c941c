package apply

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// TestRandomCommands draws commands, sensible and not, and checks after each that the invariants hold, that a
// refused command and a repeat changed nothing, that tokens only rise, that no session's deadline is taken back, and that
// a lock leaves its holder only by release, break or the end of its session; at the end that another replica is equal,
// and one that was restored from a snapshot in the middle and went on from there.
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
			request := drawRequest(rt, w, body)
			tables, before := w.s.tableSums(), w.s.View()
			res := w.request(body, request)
			if err := kept(before, w.s, body); err != nil {
				rt.Fatalf("after command %d, %T %+v: %v", i, body, body, err)
			}
			if res.Flags&command.FlagRepeat != 0 && !slices.Equal(tables, w.s.tableSums()) {
				rt.Fatalf("command %d, %T, was a repeat and changed something", i, body)
			}
			if res.Err != nil && (!slices.Equal(tables, w.s.tableSums()) || len(w.s.Emitted()) > 0) && alarms(w.s) == 0 {
				rt.Fatalf("command %d, %T, was refused (%v) and changed something", i, body, res.Err)
			}
			if alarms(w.s) > 0 && anyAlarm(w, "failed inside") {
				rt.Fatalf("command %d, %+v, panicked: %s", i, body, alarmText(w))
			}
			if err := w.s.invariants(); err != nil {
				rt.Fatalf("after command %d, %T %+v: %v", i, body, body, err)
			}
			if now := lock.MakeToken(w.s.Root.Cluster.Generation, w.s.Root.Cluster.Tokens); now < tokens {
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
		cut := rapid.IntRange(1, len(w.log)).Draw(rt, "snapshot after")
		head := New()
		for i, c := range w.log[:cut] {
			head.Apply(uint64(i+1), c)
		}
		var buf bytes.Buffer
		if err := head.View().WriteSnapshot(&buf); err != nil {
			rt.Fatal(err)
		}
		read, err := state.ReadSnapshot(&buf)
		if err != nil {
			rt.Fatal(err)
		}
		restored := On(read)
		if restored.Hash() != head.Hash() {
			rt.Fatal("the restored state has another hash")
		}
		for i, c := range w.log[cut:] {
			a, b := head.Apply(uint64(cut+i+1), c), restored.Apply(uint64(cut+i+1), c)
			if head.Hash() != restored.Hash() || fmt.Sprint(a.Err) != fmt.Sprint(b.Err) || len(head.Emitted()) != len(restored.Emitted()) {
				rt.Fatalf("restored after %d commands, command %d, %T, does something else", cut, cut+i+1, c.Body)
			}
		}
		if err := restored.invariants(); err != nil {
			rt.Fatalf("restored: %v", err)
		}
	})
}

// kept checks what holds between one state and the next.
func kept(before *state.View, s *Applier, body command.Body) (err error) {
	before.Sessions(func(old *state.Session) bool {
		if se := s.Session(old.ID); se != nil && se.Deadline < old.Deadline {
			err = fmt.Errorf("session %s was granted until %s and now ends at %s", se.ID, old.Deadline, se.Deadline)
		}
		return err == nil
	})
	before.Certificates(func(old *state.Certificate) bool {
		if c := s.Certificates.Find(old.Key); old.RevokedBy != "" && c != nil && c.RevokedBy == "" {
			err = fmt.Errorf("the revoked key %x of %s %s is believed again", old.Key[:2], old.Role, old.Name)
		}
		return err == nil
	})
	before.Held(func(was *node.Node) bool {
		id, old := was.ID, was.Lock
		if n := s.Node(id); old.Flow != 0 || n != nil && n.Lock == old {
			return true
		}
		ended := s.Session(old.Session) == nil && (s.Client(old.Session) == nil || s.Client(old.Session).Ended)
		switch c := body.(type) {
		case command.ReleaseLock:
			ended = ended || c.Node == id && c.Token == old.Token
		case command.BreakLock:
			ended = ended || c.Node == id
		}
		if !ended {
			err = fmt.Errorf("%s lost the lock of node %s", old.Holder, id)
		}
		return err == nil
	})
	return err
}

// tableSums are the hashes of what commands change, without the root's counters.
func (s *Applier) tableSums() []uint64 {
	return []uint64{
		s.Nodes.Sum(), s.Ports.Sum(), s.Flows.Sum(), s.Inventories.Sum(), s.Sessions.Sum(), s.Agents.Sum(), s.Rings.Sum(),
		s.Clients.Sum(), s.Answers.Sum(), s.JoinTokens.Sum(), s.Members.Sum(), s.Certificates.Sum(), s.BMCs.Sum(), s.Root.LastFlow, s.Root.Cluster.Tokens,
		uint64(s.jobs.AtWork(flow.LimitDeploy)), uint64(s.jobs.AtWork(flow.LimitClean)),
	}
}

// alarms is how many there are.
func alarms(s *Applier) (n int) {
	s.View().Alarms(func(*state.Alarm) bool { n++; return true })
	return n
}

func anyAlarm(w *world, part string) bool { return bytes.Contains([]byte(alarmText(w)), []byte(part)) }

func alarmText(w *world) string {
	var all string
	w.s.View().Alarms(func(a *state.Alarm) bool { all += a.Text + "\n"; return true })
	return all
}

var drawnVerbs = []string{"manage", "provide", "inspect", "clean", "active", "rebuild", "deleted", "abort", "unhold", "rescue"}

// draw draws a command; most are reports that keep work going.
func draw(rt *rapid.T, w *world) command.Body {
	const nodes = 4
	id := nodeID(rapid.IntRange(0, nodes-1).Draw(rt, "node"))
	n := w.s.Node(id)
	kind := rapid.IntRange(0, 46).Draw(rt, "kind")
	if n == nil {
		for i := range nodes {
			if nodeID(i) == id {
				return createBodyOf(i, func(n *node.Node) {
					if i == nodes-1 {
						n.Group = "other"
					}
				})
			}
		}
	}
	name := rapid.SampledFrom([]string{"r1", "r2", "r3"}).Draw(rt, "agent")
	switch {
	case kind < 12 && w.open(id):
		w.disk = rapid.SampledFrom([]string{"d1", "d1", "d2"}).Draw(rt, "disk")
		good := w.wiped
		defer func() { w.wiped = good }()
		if rapid.IntRange(0, 9).Draw(rt, "bad wipe") == 0 {
			w.wiped = map[string]string{flow.FactMethod: "discard", flow.FactDisks: rapid.SampledFrom([]string{"", "d2", "d3"}).Draw(rt, "wiped")}
		}
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
		return command.UpdateNode{Node: node.Node{ID: id, Name: name, Group: "default", Driver: "redfish"}, Fields: []string{rapid.SampledFrom([]string{"name", "group", "driver", "retired", "automated_clean", "nonsense"}).Draw(rt, "field")}}
	case kind < 37:
		return command.WaiveWipe{Node: id, Reason: "test"}
	case kind < 38:
		return command.HandoverAck{Node: id, Agent: n.PrevOwner, Epoch: n.Epoch}
	case kind < 39 && n.FlowOpen:
		return timeoutOf(w, id)
	case kind < 40:
		return drawSettings(rt)
	case kind < 43:
		return drawCertificate(rt, w, name)
	case kind < 46:
		return command.PowerSeen{Node: id, Agent: n.Owner, Epoch: n.Epoch, Power: node.Power(rapid.IntRange(0, 3).Draw(rt, "power")), Error: "no answer"}
	default:
		return command.NewGeneration{Reason: "test"}
	}
}

func drawSettings(rt *rapid.T) command.Body {
	set := command.DefaultSettings()
	set.SessionTTL = time.Duration(rapid.IntRange(1, 4).Draw(rt, "session ttl")) * time.Second
	set.BMCChangeDeadline = time.Duration(rapid.IntRange(1, 4).Draw(rt, "change deadline")) * time.Second
	set.BootTTL = time.Duration(rapid.IntRange(1, 4).Draw(rt, "boot ttl")) * time.Second
	set.MaxDeploy = uint32(rapid.IntRange(1, 3).Draw(rt, "deploys"))
	set.MaxClean = uint32(rapid.IntRange(1, 3).Draw(rt, "cleans"))
	set.BootTries, set.StepTries = 2, uint32(rapid.IntRange(1, 3).Draw(rt, "tries"))
	set.Erase = rapid.SampledFrom([]string{"auto", "metadata"}).Draw(rt, "erase")
	return command.UpdateSettings{Settings: set}
}

// drawRequest gives some commands an id, of which some are repeats; a lock of a person's always has one.
func drawRequest(rt *rapid.T, w *world, body command.Body) command.RequestID {
	client := rapid.SampledFrom([]string{"cl1", "cl2"}).Draw(rt, "client")
	switch c := body.(type) {
	case command.Tick, command.NewGeneration:
		return command.RequestID{}
	case command.AcquireLock:
		if c.Session == "" || w.s.Session(c.Session) != nil {
			return command.RequestID{}
		}
		client = c.Session
	default:
		if rapid.IntRange(0, 3).Draw(rt, "has an id") != 0 {
			return command.RequestID{}
		}
	}
	var high uint64
	if c := w.s.Client(client); c != nil {
		high = c.High
	}
	seq := high + 1
	if rapid.IntRange(0, 4).Draw(rt, "repeat") == 0 {
		seq = max(high, 1)
	}
	return command.RequestID{Client: client, Seq: seq}
}

func timeoutOf(w *world, id node.ID) command.Body {
	f := w.flow(id)
	return command.Timeout{Node: id, Flow: f.ID, Step: f.Cur, Attempt: f.Step().Attempt.N, Deadline: f.Step().Attempt.Deadline}
}

func drawAgent(rt *rapid.T, w *world, name string) command.Body {
	incarnation := uint64(1)
	a := w.s.Agent(name)
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
	group, drivers := "default", []string{"fake-hardware", "redfish"}
	if name == "r3" {
		group = rapid.SampledFrom([]string{"default", "other", "other"}).Draw(rt, "group")
		drivers = drivers[:rapid.IntRange(1, 2).Draw(rt, "drivers")]
	}
	return command.OpenSession{
		Session: fmt.Sprintf("s%d", w.index), Agent: name, Group: group, Drivers: drivers, Weight: 1,
		Journal: "j-" + name, Incarnation: incarnation, Level: state.Level,
	}
}

// drawCertificate draws what the roster is about, of a few keys and tokens.
func drawCertificate(rt *rapid.T, w *world, name string) command.Body {
	key := [32]byte{byte(rapid.IntRange(1, 6).Draw(rt, "key"))}
	role := rapid.SampledFrom([]string{"agent", "operator", "coordinator"}).Draw(rt, "role")
	switch rapid.IntRange(0, 5).Draw(rt, "certificate command") {
	case 0:
		return command.CreateJoinToken{ID: fmt.Sprintf("t%d", w.index%4), Role: role, Name: name, TTL: time.Minute}
	case 1, 2:
		t, ok := w.s.View().JoinToken(fmt.Sprintf("t%d", rapid.IntRange(0, 3).Draw(rt, "token")))
		if ok {
			return command.UseJoinToken{ID: t.ID, Role: t.Role, Key: key, TTL: 5 * time.Second}
		}
	case 3:
		return command.RenewCertificate{Key: key, TTL: 10 * time.Second}
	case 4:
		return command.RevokeCertificates{Role: "operator", Name: name, Reason: "test"}
	}
	return command.RemoveMember{ID: name, Rejoins: rapid.Bool().Draw(rt, "rejoins")}
}

func drawTick(rt *rapid.T, w *world) command.Body {
	t := command.Tick{D: time.Duration(rapid.IntRange(-1, 3).Draw(rt, "half seconds")) * time.Second / 2, FirstOfTerm: rapid.IntRange(0, 9).Draw(rt, "first") == 0}
	w.s.Sessions.Scan(func(se *state.Session) bool {
		if rapid.Bool().Draw(rt, "renew") {
			t.Renew = append(t.Renew, se.ID)
		}
		return true
	})
	return t
}

func drawLock(rt *rapid.T, w *world, n *node.Node) command.Body {
	session := ""
	if a := w.s.Agent(n.Owner); a != nil {
		session = a.Session
	}
	switch rapid.IntRange(0, 2).Draw(rt, "lock command") {
	case 0:
		if rapid.Bool().Draw(rt, "a person's") {
			return command.AcquireLock{Node: n.ID, Session: rapid.SampledFrom([]string{"cl1", "cl2"}).Draw(rt, "client session"), Holder: "operator alice"}
		}
		return command.AcquireLock{Node: n.ID, Session: session, Holder: "agent " + n.Owner, Task: "t", Purpose: "test"}
	case 1:
		return command.ReleaseLock{Node: n.ID, Token: n.Lock.Token}
	default:
		return command.BreakLock{Node: n.ID, Reason: "test"}
	}
}
