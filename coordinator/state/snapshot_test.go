package state

import (
	"bufio"
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// rich is a state with something in every table and every index.
func rich() *State {
	s := New()
	s.Begin(7, command.Header{Cluster: "c0ffee", At: time.Unix(1_790_000_000, 0), Actor: "operator alice"})
	s.Root.Elapsed, s.Root.Settings, s.Root.LastFlow = time.Minute, command.DefaultSettings(), 3
	s.Root.Cluster = Cluster{ID: "c0ffee", Generation: 2, Level: Level, CACert: []byte("ca"), CAKey: node.Sealed{KeyID: 1, Box: []byte("key")}, Tokens: 9}
	l := &s.Log
	for _, name := range []string{"r1", "r2"} {
		s.Agents.Put(l, &Agent{Name: name, Group: "default", Drivers: []string{"redfish"}, Weight: 100, Session: "s-" + name})
		s.Sessions.Put(l, &Session{ID: "s-" + name, Agent: name, Deadline: 2 * time.Minute, TTL: time.Minute})
	}
	s.Rings.Put(l, &Ring{Group: "default", Driver: "redfish", Epoch: 2})
	s.Members.Put(l, &command.Member{ID: "c1", RaftAddress: "a", APIAddress: "b", Version: "1", Level: Level})
	s.JoinTokens.Put(l, &JoinToken{ID: "t1", Role: RoleAgent, Name: "r3", Hash: [32]byte{1}, Expires: time.Hour})
	s.Certificates.Put(l, &Certificate{Key: [32]byte{1}, Role: RoleOperator, Name: "bob", Ends: time.Hour, RevokedBy: "operator alice"})
	s.Certificates.Put(l, &Certificate{Key: [32]byte{2}, Role: RoleCoordinator, Name: "c1", Ends: time.Hour})
	for i, n := range []node.Node{
		{ID: "1", Name: "n1", Owner: "r1", Provision: lifecycle.Manageable, Flow: 1},
		{ID: "2", Owner: "r1", PrevOwner: "r2", Provision: lifecycle.Cleaning, TargetProvision: lifecycle.Available, Flow: 2, FlowOpen: true, Lock: node.Lock{Token: 9, Session: "s-r1", Flow: 2}},
		{ID: "3", Provision: lifecycle.Cleaning, TargetProvision: lifecycle.Available, Flow: 3, FlowOpen: true, Extra: map[string]string{"rack": "7"}},
	} {
		n.Group, n.Driver = "default", "redfish"
		s.Nodes.Put(l, &n)
		f := &flow.Flow{ID: n.Flow, Node: string(n.ID), Kind: flow.Clean, Status: flow.Done, Phase: 1, Steps: []flow.Step{{Interface: "power", Name: "power_off"}}}
		if n.FlowOpen {
			f.Status, f.Phase = flow.Running, uint8(2-i)
			f.Steps[0].Attempt = flow.Attempt{N: 1, Open: i == 1, Deadline: 3 * time.Minute}
		}
		s.Flows.Put(l, f)
	}
	s.Ports.Put(l, &node.Port{ID: "p1", Node: "1", Address: "52:54:00:00:00:01"})
	s.Inventories.Put(l, &Inventory{Node: "1", Data: []byte("inventory")})
	s.BMCs.Put(l, &BMCSessions{Node: "1", Sessions: []command.BMCSession{{URI: "/s/1", Agent: "r1", Session: "s-r1"}}})
	s.Clients.Put(l, &Client{ID: "cl1", Actor: "operator alice", High: 1, Count: 1})
	s.Clients.Put(l, &Client{ID: "cl2", Actor: "operator bob", High: 1, Ended: true})
	s.Answers.Put(l, &Answer{Client: "cl1", Seq: 1, Result: command.Result{Node: "1"}})
	s.Emit(EventNodeCreated, s.Node("1"), "driver", "redfish")
	s.Raise("something is odd")
	s.Nodes.Pack("1", (*node.Node).AtRest)
	return s
}

// indexes are the sizes of what a snapshot does not have.
func (d *Tables) indexes() map[string]int {
	return map[string]int{
		"names": d.nodeNames.Len(), "owners": d.nodesOf.Len(), "handovers": d.handovers.Len(), "held": d.held.Len(), "ring nodes": d.ringNodes.Len(),
		"ring totals": d.ringTotals.Len(), "addresses": d.portMACs.Len(), "ports": d.portsOf.Len(), "open flows": d.openFlows.Len(), "queued flows": d.queuedFlows.Len(),
		"deadlines": d.deadlines.Len(), "ends of certificates": d.endings.Len(), "ended clients": d.endedClients.Len(),
	}
}

func TestSnapshot(t *testing.T) {
	s := rich()
	if got := s.endings.Len(); got != 1 {
		t.Errorf("%d certificates end, want the operator's only", got)
	}
	for name, n := range s.indexes() {
		if n == 0 {
			t.Errorf("nothing is in the index of %s", name)
		}
	}
	var one, two bytes.Buffer
	if err := s.View().WriteSnapshot(&one); err != nil {
		t.Fatal(err)
	}
	restored, err := ReadSnapshot(bytes.NewReader(one.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if restored.Hash() != s.Hash() {
		t.Fatal("the restored state has another hash")
	}
	if err := restored.View().WriteSnapshot(&two); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatal("the snapshot of a restored state differs")
	}
	if !reflect.DeepEqual(restored.Root, s.Root) {
		t.Fatalf("root %+v, want %+v", restored.Root, s.Root)
	}
	if got, want := restored.indexes(), s.indexes(); !reflect.DeepEqual(got, want) {
		t.Errorf("indexes %v, want %v", got, want)
	}
	for _, cut := range []int{0, 1, one.Len() / 2, one.Len() - 1} {
		if _, err := ReadSnapshot(bytes.NewReader(one.Bytes()[:cut])); !fault.Is(err, fault.Corrupt) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	flipped := bytes.Clone(one.Bytes())
	flipped[len(flipped)/2] ^= 4
	if _, err := ReadSnapshot(bytes.NewReader(flipped)); err == nil {
		t.Error("a flipped bit was not seen")
	}
}

// TestRollback: what a command did goes, with what follows from it; what was before stays.
func TestRollback(t *testing.T) {
	s := rich()
	s.Begin(8, command.Header{Cluster: "c0ffee"})
	key := RingKey{"default", "redfish"}
	hash, indexes, members := s.Hash(), s.indexes(), len(s.RingMembers(key))
	mark := s.Mark()
	a := *s.Agent("r1")
	a.Draining = true
	s.Agents.Put(&s.Log, &a)
	if got := len(s.RingMembers(key)); got != members-1 {
		t.Errorf("%d members while one of %d drains", got, members)
	}
	old := s.Node("1")
	n := old.Clone()
	n.Owner, n.Name = "", "other"
	s.ReplaceNode(old, n)
	s.InsertNode(&node.Node{ID: "4", Group: "default", Driver: "redfish"}, "")
	s.Nodes.Drop(&s.Log, "3")
	s.Root.Elapsed += time.Second
	s.ForgetEvents()
	s.Emit(EventSettings, nil)
	s.Rollback(mark)
	if s.Hash() != hash || len(s.Emitted()) != 0 {
		t.Errorf("the hash differs, or events are left: %v", s.Emitted())
	}
	if got := s.indexes(); !reflect.DeepEqual(got, indexes) {
		t.Errorf("indexes %v, want %v", got, indexes)
	}
	if got := len(s.RingMembers(key)); got != members || s.NodeNamed("n1") == nil || s.RingLoad(key, "r1") != 2 {
		t.Errorf("%d members of %d, %d nodes, node named n1: %v", got, members, s.RingLoad(key, "r1"), s.NodeNamed("n1"))
	}
}

// TestSnapshotWithABadNode: an archive that somebody made, or an upgrade turned back.
func TestSnapshotWithABadNode(t *testing.T) {
	s := New()
	s.Nodes.Put(&s.Log, &node.Node{ID: "1", Name: "n1", Group: "default", Driver: "redfish", Provision: lifecycle.Enroll})
	good := node.Pack(s.Node("1")).Data
	unheard := *s.Node("1")
	unheard.Provision = 200
	for name, c := range map[string]struct {
		nodes []node.Packed
		want  fault.Kind
	}{
		"cut":              {[]node.Packed{{Form: node.PackForm, Data: good[:len(good)-1]}}, fault.Corrupt},
		"nothing":          {[]node.Packed{{Form: node.PackForm}}, fault.Corrupt},
		"a later one":      {[]node.Packed{{Form: node.PackForm + 1, Data: good}}, fault.Version},
		"of a later state": {[]node.Packed{{Form: node.PackForm, Data: node.Pack(&unheard).Data}}, fault.Version},
		"twice":            {[]node.Packed{{Form: node.PackForm, Data: good}, {Form: node.PackForm, Data: good}}, fault.Corrupt},
	} {
		var buf bytes.Buffer
		out := &snapshotWriter{w: bufio.NewWriter(&buf)}
		out.write(s.rootRecord())
		for i := range c.nodes {
			out.write(&c.nodes[i])
		}
		out.write(&command.SnapshotEnd{Records: out.records, Hash: s.Hash()})
		if err := out.w.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSnapshot(&buf); !fault.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
