package plan

import (
	"slices"
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// Assignment is what a node's owner should know of it. Node.DriverInfo has no secrets: Node.Secrets are to be
// unsealed by the sender with aad "node/<id>/<field>". Assignments compare by Epoch, Node.Version, Token, Boot
// and the ports' versions.
type Assignment struct {
	Agent string
	Node  *node.Node
	Ports []*node.Port
	Token lock.Token // the highest granted: lower ones are refused
	Boot  *Boot      // nil: no boot is authorised
	Epoch uint64
	// BMCSessions are the URIs of sessions that may be open at the BMC and are not of the owner's present session: the
	// owner ends them before its first effect.
	BMCSessions []string
}

// Boot is an authorised start of the ramdisk. Its secret is the sender's to derive.
type Boot struct {
	ID        string
	KeyHash   string // once claimed: the only key that may use it
	Flow      flow.ID
	ExpiresIn time.Duration // from now
	// What the BMC said of its machine when the boot was prepared; "" before, and where it did not say.
	SystemUUID, Serial string
}

// Assign is the assignment of a node to its owner. ok is false when the node is gone, has no live owner, or the
// previous owner has not yet let go: then the owner is told nothing.
func Assign(v *state.View, id node.ID) (a Assignment, ok bool) {
	n, found := v.Node(id)
	if !found || n.Owner == "" || n.PrevOwner != "" {
		return Assignment{}, false
	}
	owner, found := v.Agent(n.Owner)
	if !found || owner.Session == "" {
		return Assignment{}, false
	}
	a = Assignment{Agent: n.Owner, Node: n, Ports: v.Ports(id), Token: n.Token, Epoch: n.Epoch}
	for _, b := range v.BMCSessions(id) {
		if b.Session != owner.Session {
			a.BMCSessions = append(a.BMCSessions, b.URI)
		}
	}
	if f, found := v.Flow(n.Flow); n.FlowOpen && found && f.Boot.ID != "" && f.Boot.Expires > v.Elapsed() {
		a.Boot = &Boot{ID: f.Boot.ID, KeyHash: f.Boot.KeyHash, Flow: f.ID, ExpiresIn: f.Boot.Expires - v.Elapsed()}
		if i := slices.IndexFunc(f.Steps, func(s flow.Step) bool { return s.FullName() == flow.StepPrepare }); i >= 0 {
			a.Boot.SystemUUID, a.Boot.Serial = f.Steps[i].Facts[flow.FactUUID], f.Steps[i].Facts[flow.FactSerial]
		}
	}
	return a, true
}

// Handover is a node that an agent lost and has to tear down: Unassign with this epoch.
type Handover struct {
	Node  node.ID
	Epoch uint64
	To    string
}

// Handovers are the nodes that an agent has not yet acknowledged to have lost.
func Handovers(v *state.View, agent string) []Handover {
	var list []Handover
	v.PendingHandovers(agent, func(n *node.Node) bool {
		list = append(list, Handover{Node: n.ID, Epoch: n.Epoch, To: n.Owner})
		return true
	})
	return list
}
