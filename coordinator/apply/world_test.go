package apply

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

const cluster = "c0ffee"

var imageSHA = strings.Repeat("ab", 32)

// world drives a State as a leader and a rack would, with everything drawn from counters.
type world struct {
	t      testing.TB
	wiped  map[string]string // facts of the erase steps; see newWorld
	disk   string            // that select_disk finds
	s      *Applier
	index  uint64
	actor  string
	events []state.Event
	log    []command.Command
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, s: New(), actor: "operator alice", disk: "d1", wiped: map[string]string{flow.FactMethod: "discard", flow.FactDisks: "d1,d2", flow.FactSample: "64"}}
	w.must(command.InitCluster{ClusterID: cluster, Settings: command.DefaultSettings()})
	return w
}

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func (w *world) try(body command.Body) command.Result {
	return w.request(body, command.RequestID{})
}

func (w *world) request(body command.Body, r command.RequestID) command.Result {
	w.index++
	seed := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, w.index))
	c := command.Command{
		Header: command.Header{Cluster: cluster, At: epoch.Add(time.Duration(w.index) * time.Second), Actor: w.actor, Request: r, Level: state.Level, Seed: [16]byte(seed[:16])},
		Body:   body,
	}
	w.log = append(w.log, c)
	res := w.s.Apply(w.index, c)
	w.events = append(w.events, w.s.Emitted()...)
	return res
}

func (w *world) must(body command.Body) command.Result {
	w.t.Helper()
	res := w.try(body)
	if res.Err != nil {
		w.t.Fatalf("%T: %v", body, res.Err)
	}
	return res
}

func (w *world) refused(body command.Body, kind fault.Kind) command.Result {
	w.t.Helper()
	res := w.try(body)
	if !fault.Is(res.Err, kind) {
		w.t.Fatalf("%T: got %v, want %s", body, res.Err, kind)
	}
	return res
}

func (w *world) agent(name string, incarnation uint64) string {
	w.t.Helper()
	return w.must(command.OpenSession{
		Session: fmt.Sprintf("s-%s-%d-%d", name, incarnation, w.index), Agent: name, Group: "default", Drivers: []string{"fake-hardware", "redfish"},
		Weight: 100, Journal: "j-" + name, Incarnation: incarnation, Version: "1.0", Level: state.Level,
		RamdiskURL: "https://" + name + ":8443", HTTPURL: "http://" + name + ":8080", RamdiskPin: "00",
	}).Session
}

func nodeID(i int) node.ID {
	return node.ID(fmt.Sprintf("%08x-0000-4000-8000-%012x", i*2654435761%4294967296, i))
}
func mac(i int) string { return fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16&255, i>>8&255, i&255) }

func (w *world) create(i int) node.ID {
	w.t.Helper()
	return w.must(createBody(i)).Node
}

func createBody(i int) command.CreateNode { return createBodyOf(i, func(*node.Node) {}) }

// createBodyOf is createBody for a node that is not like the others.
func createBodyOf(i int, change func(*node.Node)) command.CreateNode {
	n := node.Node{ID: nodeID(i), Name: fmt.Sprintf("n%d", i), Driver: "fake-hardware", Group: "default", DriverInfo: map[string]string{"address": "10.0.0.1"}}
	change(&n)
	return command.CreateNode{
		Node:  node.Pack(&n),
		Ports: []node.Port{{ID: fmt.Sprintf("p%d", i), Address: mac(i), PXEEnabled: true}},
	}
}

func (w *world) node(id node.ID) *node.Node {
	w.t.Helper()
	n := w.s.Node(id)
	if n == nil {
		w.t.Fatalf("node %s is gone", id)
	}
	return n
}

func (w *world) flow(id node.ID) *flow.Flow { return w.s.Flow(w.node(id).Flow) }

// done is what a rack reports when the open attempt of a node succeeds.
func (w *world) done(id node.ID) command.Body {
	f := w.flow(id)
	st := f.Step()
	if st.Executor == step.Wait {
		return command.Edge{Node: id, Flow: f.ID, Boot: f.Boot.ID, Kind: "first_contact", KeyHash: "k-" + f.Boot.ID, Agent: "r1"}
	}
	facts := map[string]string{}
	var inventory []byte
	switch st.FullName() {
	case flow.StepPowerOn:
		facts[flow.FactPower] = "power on"
	case flow.StepPowerOff:
		facts[flow.FactPower] = "power off"
	case flow.StepVerify:
		facts = map[string]string{flow.FactPower: "power off", "manufacturer": "Acme"}
	case flow.StepInventory:
		inventory = []byte("inventory")
		facts = map[string]string{"cpus": "8", "memory_mb": "16384", "boot_mode": "uefi"}
	case flow.StepErase:
		facts = w.wiped
	case flow.StepEraseMeta:
		facts = maps.Clone(w.wiped)
		if facts[flow.FactMethod] == "discard" {
			facts[flow.FactMethod] = "metadata"
		}
	case flow.StepSelectDisk:
		facts = map[string]string{flow.FactDisk: w.disk}
	case flow.StepWriteImage:
		facts = map[string]string{flow.FactDigest: imageSHA}
	}
	return command.Outcome{
		Node: id, Flow: f.ID, Step: f.Cur, Attempt: st.Attempt.N, Token: st.Attempt.Token, Boot: st.Attempt.Boot,
		OK: true, Facts: facts, Inventory: inventory, Agent: "r1",
	}
}

func (w *world) failure(id node.ID, retryable bool) command.Outcome {
	f := w.flow(id)
	st := f.Step()
	return command.Outcome{
		Node: id, Flow: f.ID, Step: f.Cur, Attempt: st.Attempt.N, Token: st.Attempt.Token, Boot: st.Attempt.Boot,
		Error: "no answer", ErrorKind: "unavailable", Retryable: retryable,
	}
}

// open tells whether the node has an open attempt.
func (w *world) open(id node.ID) bool {
	n := w.node(id)
	if !n.FlowOpen {
		return false
	}
	st := w.flow(id).Step()
	return st != nil && st.Attempt.Open
}

// run reports success until no attempt is open.
func (w *world) run(id node.ID) {
	w.t.Helper()
	for i := 0; w.open(id); i++ {
		if i == 200 {
			w.t.Fatalf("node %s does not come to rest: %+v", id, w.flow(id).Step())
		}
		w.must(w.done(id))
	}
}

func (w *world) verb(id node.ID, verb string) command.Provision {
	p := command.Provision{Node: id, Verb: verb}
	if verb == "active" {
		p.Instance = &node.Instance{ImageURL: "http://images/a", ImageSHA: imageSHA, ImageFmt: "raw", Hostname: "web-1"}
	}
	if verb == "clean" {
		p.CleanSteps = []command.CleanStep{{Interface: "deploy", Step: "erase_devices_metadata"}}
	}
	return p
}

// to brings a node to a state by verbs and successes.
func (w *world) to(id node.ID, verbs ...string) {
	w.t.Helper()
	for _, v := range verbs {
		w.must(w.verb(id, v))
		w.run(id)
	}
}

func (w *world) is(id node.ID, state string) {
	w.t.Helper()
	if n := w.node(id); n.Provision.String() != state {
		w.t.Fatalf("node is %s, want %s (last error %q)", n.Provision, state, n.LastError)
	}
}

func (w *world) ticks(d time.Duration, renew ...string) {
	w.t.Helper()
	for ; d > 0; d -= state.MaxTick {
		w.must(command.Tick{D: min(d, state.MaxTick), Renew: renew})
	}
}
