package ring

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// MaxWeight bounds a member's weight: ranking costs one hash per slot. Greater weights count as this.
const MaxWeight = 1024

// Member is a live agent that can take nodes. Weight 0 counts as 1.
type Member struct {
	Agent  string
	Weight uint32
}

func (m Member) slots() uint32 { return min(max(m.Weight, 1), MaxWeight) }

// Candidate is a member as one node sees it.
type Candidate struct {
	Member
	Hash uint64 // the smallest of its slots: lower is better
	Load int    // nodes it owns
	Cap  int    // nodes it may own
}

// Below tells whether the candidate can take one more node.
func (c Candidate) Below() bool { return c.Load < c.Cap }

// Order ranks the members for a node, best first. It depends on nothing but its arguments, and not on the
// order of members; each member's place relative to another does not change when a third comes or goes.
func Order(nodeID string, members []Member) []string {
	ranked := rank(nodeID, members)
	agents := make([]string, len(ranked))
	for i, c := range ranked {
		agents[i] = c.Agent
	}
	return agents
}

// Cap is how many of the ring's nodes a member may own: ceil(1.02 × nodes × weight / all weights). totalNodes
// counts the node that is being placed. It is never below 1 for a ring with nodes and a member with weight.
func Cap(totalNodes int, weight, totalWeight uint64) int {
	if totalNodes <= 0 || weight == 0 || totalWeight == 0 {
		return 0
	}
	num, den := uint64(totalNodes)*weight*102, totalWeight*100
	return int((num + den - 1) / den)
}

// Place chooses the agent for a node: the first in its order that is below its cap, else (when loads are far
// from even, because joins move nothing) the one with the least load for its weight, earlier in the order
// first. totalNodes counts the node itself. ok is false only when there are no members.
func Place(nodeID string, members []Member, load func(agent string) int, totalNodes int) (agent string, ok bool) {
	var below, least Candidate // the best of each kind so far; Agent "" is none
	weights, key := totalWeight(members), newKey(nodeID)
	for _, m := range members {
		c := Candidate{Member: m, Hash: key.of(m), Load: load(m.Agent), Cap: Cap(totalNodes, uint64(m.slots()), weights)}
		switch {
		case c.Below():
			if below.Agent == "" || c.before(below) {
				below = c
			}
		case least.Agent == "" || c.lighter(least) || !least.lighter(c) && c.before(least):
			least = c
		}
	}
	if below.Agent != "" {
		return below.Agent, true
	}
	return least.Agent, least.Agent != ""
}

// lighter compares loads per weight without dividing.
func (c Candidate) lighter(d Candidate) bool {
	return uint64(c.Load)*uint64(d.slots()) < uint64(d.Load)*uint64(c.slots())
}

// before is the node's order.
func (c Candidate) before(d Candidate) bool {
	return c.Hash < d.Hash || c.Hash == d.Hash && c.Agent < d.Agent
}

// Explain is what Place looks at, in the node's order.
func Explain(nodeID string, members []Member, load func(agent string) int, totalNodes int) []Candidate {
	weights := totalWeight(members)
	ranked := rank(nodeID, members)
	for i := range ranked {
		c := &ranked[i]
		c.Load = load(c.Agent)
		c.Cap = Cap(totalNodes, uint64(c.slots()), weights)
	}
	return ranked
}

func totalWeight(members []Member) (sum uint64) {
	for _, m := range members {
		sum += uint64(m.slots())
	}
	return sum
}

func rank(nodeID string, members []Member) []Candidate {
	ranked, key := make([]Candidate, len(members)), newKey(nodeID)
	for i, m := range members {
		ranked[i] = Candidate{Member: m, Hash: key.of(m)}
	}
	slices.SortFunc(ranked, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(a.Hash, b.Hash), cmp.Compare(a.Agent, b.Agent))
	})
	return ranked
}

// key is what is hashed for one node: the hash of its id (8 bytes), the agent, the slot (4 bytes).
type key struct{ buf []byte }

func newKey(nodeID string) key {
	return key{binary.LittleEndian.AppendUint64(make([]byte, 0, 64), xxhash.Sum64String(nodeID))}
}

// of is the smallest hash among the member's slots.
func (k key) of(m Member) uint64 {
	buf := append(k.buf, m.Agent...)
	at, lowest := len(buf), ^uint64(0)
	for slot := range m.slots() {
		buf = binary.LittleEndian.AppendUint32(buf[:at], slot)
		lowest = min(lowest, xxhash.Sum64(buf))
	}
	return lowest
}
