package plan

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/state"
)

// Rebalance is at most limit moves that bring resting nodes of a group to where a new node would go: from agents
// above their cap to agents below it. A node rests when it has no open flow, no held lock and no handover under
// way. The moves are checked again when they are applied. limit 0 is 100.
func Rebalance(v *state.View, group string, limit int) []command.Move {
	if limit <= 0 {
		limit = 100
	}
	var moves []command.Move
	v.Rings(func(r *state.Ring) bool {
		if r.Group == group {
			moves = append(moves, rebalanceRing(v, v.Ring(r.Group, r.Driver), limit-len(moves))...)
		}
		return len(moves) < limit
	})
	return moves
}

func rebalanceRing(v *state.View, r state.RingView, limit int) []command.Move {
	var weights uint64
	for _, m := range r.Members {
		weights += uint64(min(max(m.Weight, 1), ring.MaxWeight))
	}
	load := func(agent string) int { return r.Load[agent] }
	var moves []command.Move
	for _, m := range r.Members {
		over := r.Load[m.Agent] - ring.Cap(r.Nodes, uint64(min(max(m.Weight, 1), ring.MaxWeight)), weights)
		v.NodesOf(m.Agent, func(n *node.Node) bool {
			if over <= 0 || len(moves) >= limit {
				return false
			}
			if n.Driver != r.Driver || n.Group != r.Group || !Resting(n) {
				return true
			}
			r.Load[m.Agent]--
			to, _ := ring.Place(string(n.ID), r.Members, load, r.Nodes)
			if to == m.Agent || to == "" {
				r.Load[m.Agent]++
				return true
			}
			r.Load[to]++
			over--
			moves = append(moves, command.Move{Node: n.ID, From: m.Agent, To: to})
			return true
		})
	}
	return moves
}

// Resting tells whether a node may change hands without disturbing work.
func Resting(n *node.Node) bool { return !n.FlowOpen && !n.Lock.Held() && n.PrevOwner == "" }
