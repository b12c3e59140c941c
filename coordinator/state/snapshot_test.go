package state

import (
	"bufio"
	"bytes"
	"reflect"
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// rich is a world with something in every table.
func rich(t testing.TB) *world {
	w := newWorld(t)
	w.agent("r1", 1)
	w.agent("r2", 1)
	w.must(command.PutMember{Member: command.Member{ID: "c1", RaftAddress: "a", APIAddress: "b", Version: "1", Level: Level}})
	w.must(command.CreateJoinToken{ID: "t1", Role: "agent", Name: "r3", Hash: [32]byte{1}, TTL: JoinTokenTTLMax})
	w.joined("operator", "bob", 1)
	w.joined("operator", "carol", 2)
	w.must(command.RevokeCertificates{Role: "operator", Name: "bob", Reason: "left"})
	for i := range 6 {
		id := w.create(i)
		w.to(id, "manage", "inspect", "provide")
		if i%2 == 0 {
			w.to(id, "active")
		}
	}
	w.must(w.verb(nodeID(1), "active"))
	w.must(command.SetDrain{Agent: "r2", On: true})
	w.request(command.SetMaintenance{Node: nodeID(3), On: true, Reason: "fan"}, command.RequestID{Client: "cl", Seq: 1, Digest: [16]byte{9}})
	w.s.raise("something is odd")
	return w
}

func TestSnapshot(t *testing.T) {
	w := rich(t)
	var one, two bytes.Buffer
	if err := w.s.View().WriteSnapshot(&one); err != nil {
		t.Fatal(err)
	}
	restored, err := ReadSnapshot(bytes.NewReader(one.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if restored.Hash() != w.s.Hash() {
		t.Fatal("the restored state has another hash")
	}
	if err := restored.View().WriteSnapshot(&two); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatal("the snapshot of a restored state differs")
	}
	if !reflect.DeepEqual(restored.root, w.s.root) {
		t.Fatalf("root %+v, want %+v", restored.root, w.s.root)
	}
	for _, same := range []struct {
		name      string
		got, want int
	}{
		{"owners", restored.nodesOf.Len(), w.s.nodesOf.Len()}, {"held", restored.held.Len(), w.s.held.Len()},
		{"open flows", restored.openFlows.Len(), w.s.openFlows.Len()}, {"deadlines", restored.deadlines.Len(), w.s.deadlines.Len()},
		{"handovers", restored.handovers.Len(), w.s.handovers.Len()}, {"rings", restored.ringNodes.Len(), w.s.ringNodes.Len()},
	} {
		if same.got != same.want {
			t.Errorf("%s: %d entries, want %d", same.name, same.got, same.want)
		}
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

// TestSnapshotWithABadNode: an archive that somebody made, or an upgrade turned back.
func TestSnapshotWithABadNode(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	w.create(1)
	good := node.Pack(w.s.node(nodeID(1))).Data
	unheard := *w.s.node(nodeID(1))
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
		out.write(w.s.rootRecord())
		for i := range c.nodes {
			out.write(&c.nodes[i])
		}
		out.write(&command.SnapshotEnd{Records: out.records, Hash: w.s.Hash()})
		if err := out.w.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSnapshot(&buf); !fault.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
