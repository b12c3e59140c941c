package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/step"
)

// rack applies commands as a leader would.
type rack struct {
	t     *testing.T
	s     *apply.Applier
	index uint64
}

func newRack(t *testing.T) *rack {
	r := &rack{t: t, s: apply.New()}
	r.do(command.InitCluster{ClusterID: "c", Settings: command.DefaultSettings()})
	return r
}

func (r *rack) do(body command.Body) command.Result {
	r.t.Helper()
	r.index++
	res := r.s.Apply(r.index, command.Command{Header: command.Header{Cluster: "c", Actor: "operator alice", Level: 1, Seed: [16]byte{byte(r.index)}}, Body: body})
	if res.Err != nil {
		r.t.Fatalf("%T: %v", body, res.Err)
	}
	return res
}

func (r *rack) agent(name string) string {
	return r.do(command.OpenSession{
		Session: fmt.Sprintf("s%d", r.index), Agent: name, Group: "g", Drivers: []string{"fake-hardware"}, Weight: 1, Journal: name, Incarnation: r.index, Level: 1,
	}).Session
}

func (r *rack) node(i int) node.ID {
	id := node.ID(fmt.Sprintf("node-%03d", i))
	r.do(command.CreateNode{
		Node:  node.Pack(&node.Node{ID: id, Name: fmt.Sprintf("n%d", i), Driver: "fake-hardware", Group: "g"}),
		Ports: []node.Port{{ID: fmt.Sprintf("p%d", i), Address: fmt.Sprintf("52:54:00:00:00:%02x", i), PXEEnabled: true}},
	})
	return id
}

// work reports success until the step in work has a name.
func (r *rack) work(id node.ID, until string) {
	r.t.Helper()
	for range 50 {
		v := r.s.View()
		f, _ := v.LastFlow(id)
		st := f.Step()
		if !f.Open() || st.FullName() == until {
			return
		}
		if st.Executor == step.Wait {
			r.do(command.Edge{Node: id, Boot: f.Boot.ID, Kind: "first_contact", KeyHash: "k"})
			continue
		}
		w, ok := Order(v, id)
		if !ok {
			r.t.Fatalf("no order for %s", st.FullName())
		}
		r.succeed(w, map[string]string{"disk_id": "d1", "digest": strings.Repeat("ab", 32), "method": "discard", "disks": "d1"})
	}
	r.t.Fatalf("%s never comes", until)
}

// succeed reports that the work was done.
func (r *rack) succeed(w Work, facts map[string]string) {
	r.t.Helper()
	r.do(command.Outcome{Node: w.Node, Flow: w.Flow, Step: w.Step, Attempt: w.Attempt, Token: w.Token, Boot: w.Boot, OK: true, Facts: facts})
}

func TestOrder(t *testing.T) {
	r := newRack(t)
	session := r.agent("r1")
	id := r.node(1)
	if _, ok := Order(r.s.View(), id); ok {
		t.Fatal("an idle node has an order")
	}
	r.do(command.Provision{Node: id, Verb: "manage"})
	v := r.s.View()
	n, _ := v.Node(id)
	w, ok := Order(v, id)
	if !ok || w.Agent != "r1" || w.Session != session || w.Interface+"."+w.Name != flow.StepVerify || w.Token != n.Lock.Token || w.Deadline != 30*time.Second {
		t.Fatalf("%+v", w)
	}
	r.work(id, "")
	r.do(command.Provision{Node: id, Verb: "provide"})
	r.work(id, flow.StepWait)
	if _, ok := Order(r.s.View(), id); ok {
		t.Fatal("the wait for the ramdisk is an order")
	}
	r.work(id, flow.StepErase)
	w, ok = Order(r.s.View(), id)
	f, _ := r.s.View().LastFlow(id)
	if !ok || w.Boot != f.Boot.ID || w.Boot == "" || w.Args["method"] != "auto" || w.Executor != step.Ramdisk {
		t.Fatalf("%+v", w)
	}
	r.work(id, "")
	r.do(command.Provision{Node: id, Verb: "active", Instance: &node.Instance{
		ImageURL: "http://i", ImageSHA: strings.Repeat("ab", 32), ImageFmt: "raw", Hostname: "web", UserData: node.Sealed{KeyID: 1, Box: []byte{1}},
		MetaData: map[string]string{"b": "2", "a": "1"},
	}})
	r.work(id, flow.StepConfigDrive)
	v = r.s.View()
	w, _ = Order(v, id)
	n, _ = v.Node(id)
	want := `{"hostname":"web","meta":{"a":"1","b":"2"},"name":"n1","uuid":"` + string(n.ID) + `"}`
	if w.Clear["meta_data"] != want || len(w.Secrets) != 1 || w.Args["disk_id"] != "d1" {
		t.Fatalf("%+v, want %s", w, want)
	}
}

func TestOrderIsHeldBack(t *testing.T) {
	r := newRack(t)
	one := r.agent("r1")
	id := r.node(1)
	r.do(command.Provision{Node: id, Verb: "manage"})
	r.work(id, "")
	r.do(command.SetPower{Node: id, Target: "power on"})
	two := r.agent("r2")
	r.do(command.CloseSession{Session: one})
	if _, ok := Order(r.s.View(), id); ok {
		t.Fatal("the new owner acts while a call of the old one may be on its way")
	}
	for range 10 {
		r.do(command.Tick{D: time.Second, Renew: []string{two}})
	}
	w, ok := Order(r.s.View(), id)
	if !ok || w.Agent != "r2" || !w.Resumed || w.Attempt != 1 {
		t.Fatalf("%+v", w)
	}
}

func TestHandover(t *testing.T) {
	r := newRack(t)
	r.agent("r1")
	id := r.node(1)
	r.agent("r2")
	if a, ok := Assign(r.s.View(), id); !ok || a.Agent != "r1" || a.Epoch != 1 || len(a.Ports) != 1 || a.Boot != nil {
		t.Fatalf("%+v", a)
	}
	r.do(command.SetDrain{Agent: "r1", On: true})
	v := r.s.View()
	if _, ok := Assign(v, id); ok {
		t.Fatal("the new owner is told before the old one let go")
	}
	h := Handovers(v, "r1")
	if len(h) != 1 || h[0] != (Handover{Node: id, Epoch: 2, To: "r2"}) {
		t.Fatalf("%+v", h)
	}
	r.do(command.HandoverAck{Node: id, Agent: "r1", Epoch: 2})
	if a, ok := Assign(r.s.View(), id); !ok || a.Agent != "r2" || a.Epoch != 2 {
		t.Fatalf("%+v", a)
	}
	r.do(command.Provision{Node: id, Verb: "manage"})
	r.work(id, "")
	r.do(command.Provision{Node: id, Verb: "provide"})
	r.work(id, flow.StepWait)
	if a, _ := Assign(r.s.View(), id); a.Boot == nil || a.Boot.ID == "" || a.Boot.ExpiresIn != 1800*time.Second {
		t.Fatalf("%+v", a.Boot)
	}
}

func TestDue(t *testing.T) {
	r := newRack(t)
	session := r.agent("r1")
	id := r.node(1)
	r.do(command.Provision{Node: id, Verb: "manage"})
	if due := Due(r.s.View()); len(due) != 0 {
		t.Fatalf("%+v", due)
	}
	for range 30 {
		r.do(command.Tick{D: time.Second, Renew: []string{session}})
	}
	due := Due(r.s.View())
	if len(due) != 1 {
		t.Fatalf("%+v", due)
	}
	if res := r.do(due[0]); res.Flags&command.FlagLate != 0 {
		t.Fatal("what is due is called late")
	}
	if due := Due(r.s.View()); len(due) != 0 {
		t.Fatalf("still due: %+v", due)
	}
	if stalled := Stalled(r.s.View()); len(stalled) != 0 {
		t.Fatalf("stalled: %+v", stalled)
	}
}

func TestRebalance(t *testing.T) {
	r := newRack(t)
	r.agent("r1")
	for i := range 40 {
		r.node(i)
	}
	busy := node.ID("node-000")
	r.do(command.Provision{Node: busy, Verb: "manage"})
	r.agent("r2")
	if some := Rebalance(r.s.View(), "g", 5); len(some) != 5 {
		t.Fatalf("%d moves, the limit is 5", len(some))
	}
	moves := Rebalance(r.s.View(), "g", 0)
	for _, m := range moves {
		if m.From != "r1" || m.To != "r2" || m.Node == busy {
			t.Errorf("%+v", m)
		}
	}
	if res := r.do(command.MoveNodes{Moves: moves}); int(res.Count) != len(moves) || len(moves) < 19 || len(moves) > 20 {
		t.Fatalf("%d of %d moves", res.Count, len(moves))
	}
	v := r.s.View()
	for _, h := range Handovers(v, "r1") {
		r.do(command.HandoverAck{Node: h.Node, Agent: "r1", Epoch: h.Epoch})
	}
	if more := Rebalance(r.s.View(), "g", 0); len(more) != 0 {
		t.Errorf("a balanced ring has moves: %+v", more)
	}
	if other := Rebalance(r.s.View(), "elsewhere", 0); len(other) != 0 {
		t.Errorf("%+v", other)
	}
}

// TestAOneShotWasOrderedAgain: whoever owns the node next waits for the outcome, and does not run it.
func TestAOneShotWasOrderedAgain(t *testing.T) {
	st := &flow.Step{Interface: "firmware", Name: "flash", Class: step.OneShot, Executor: step.BMC}
	st.Attempt = flow.Attempt{N: 1, Open: true, NotBefore: time.Second}
	for _, c := range []struct {
		resumed bool
		at      time.Duration
		want    bool
	}{{false, 0, false}, {false, time.Second, true}, {true, time.Second, false}} {
		if st.Attempt.Resumed = c.resumed; mayRun(st, c.at) != c.want {
			t.Errorf("resumed %v at %s: want %v", c.resumed, c.at, c.want)
		}
	}
	if st.Class = step.Set; !mayRun(st, time.Second) {
		t.Error("a step that may be repeated is not, after its owner died")
	}
}

// TestAnotherAgentDidNotKnowTheMachine: who takes a node over between boot.prepare and the first contact is told which machine
// the BMC controls.
func TestAnotherAgentDidNotKnowTheMachine(t *testing.T) {
	r := newRack(t)
	first := r.agent("a1")
	id := r.node(1)
	r.agent("a2")
	r.do(command.Provision{Node: id, Verb: "manage"})
	r.work(id, "")
	r.do(command.Provision{Node: id, Verb: "inspect"})
	r.work(id, flow.StepPrepare)
	if a, ok := Assign(r.s.View(), id); !ok || a.Agent != "a1" || a.Boot == nil || a.Boot.SystemUUID != "" {
		t.Fatalf("before: %+v, boot %+v", a, a.Boot)
	}
	w, _ := Order(r.s.View(), id)
	r.succeed(w, map[string]string{flow.FactUUID: "u", flow.FactSerial: "s"})
	r.do(command.CloseSession{Session: first, Reason: "it died"})
	if a, ok := Assign(r.s.View(), id); !ok || a.Agent != "a2" || a.Boot == nil || a.Boot.SystemUUID != "u" || a.Boot.Serial != "s" {
		t.Errorf("after: %+v, boot %+v", a, a.Boot)
	}
}
