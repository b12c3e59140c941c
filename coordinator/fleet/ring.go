package fleet

import (
	"context"
	"fmt"
	"slices"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Bounds of a rebalance, in moves.
const (
	defaultMoves = 100
	maxMoves     = 1000
)

// ShowRing implements RingService.
func (s *Service) ShowRing(ctx context.Context, req *farrierv1.ShowRingRequest) (*farrierv1.ShowRingResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	out := &farrierv1.ShowRingResponse{}
	v.Rings(func(r *state.Ring) bool {
		if req.GetGroup() == "" || req.GetGroup() == r.Group {
			out.Rings = append(out.Rings, ringOut(v, r.Group, r.Driver))
		}
		return true
	})
	return out, nil
}

func ringOut(v *state.View, group, driver string) *farrierv1.Ring {
	r := v.Ring(group, driver)
	out := &farrierv1.Ring{Group: group, Driver: driver, Epoch: r.Epoch, Nodes: uint64(max(r.Nodes, 0))}
	var weights uint64
	for _, m := range r.Members {
		weights += uint64(max(m.Weight, 1))
	}
	if weights > 0 {
		out.CapPerWeightMilli = (out.Nodes*1020 + weights - 1) / weights
	}
	v.Agents(func(a *state.Agent) bool {
		if a.Group == group && a.HasDriver(driver) {
			out.Members = append(out.Members, &farrierv1.RingMember{Agent: a.Name, Weight: a.Weight, Nodes: uint64(max(r.Load[a.Name], 0)),
				Live: a.Session != "", Draining: a.Draining})
		}
		return true
	})
	return out
}

// ExplainNode implements RingService.
func (s *Service) ExplainNode(ctx context.Context, req *farrierv1.ExplainNodeRequest) (*farrierv1.ExplainNodeResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	n, err := message.FindNode(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	return explain(v, n), nil
}

// explain ranks every agent of the node's group, those that cannot have the node included.
func explain(v *state.View, n *node.Node) *farrierv1.ExplainNodeResponse {
	r := v.Ring(n.Group, n.Driver)
	agents := map[string]*state.Agent{}
	var all []ring.Member
	v.Agents(func(a *state.Agent) bool {
		if a.Group == n.Group {
			agents[a.Name] = a
			all = append(all, ring.Member{Agent: a.Name, Weight: a.Weight})
		}
		return true
	})
	caps := map[string]int{}
	for _, c := range ring.Explain(string(n.ID), r.Members, func(a string) int { return r.Load[a] }, r.Nodes) {
		caps[c.Agent] = c.Cap
	}
	out := &farrierv1.ExplainNodeResponse{Node: string(n.ID), Agent: n.Owner, Reason: ownerReason(v, n)}
	for _, c := range ring.Explain(string(n.ID), all, func(a string) int { return r.Load[a] }, r.Nodes) {
		a := agents[c.Agent]
		x := &farrierv1.RingCandidate{Agent: c.Agent, Hash: c.Hash, Live: a.Session != "", Draining: a.Draining,
			HasDriver: a.HasDriver(n.Driver), Load: uint64(max(c.Load, 0)), Cap: uint64(max(caps[c.Agent], 0))}
		x.Verdict = verdict(n, x)
		out.Candidates = append(out.Candidates, x)
	}
	return out
}

func verdict(n *node.Node, c *farrierv1.RingCandidate) string {
	switch {
	case c.GetAgent() == n.Owner:
		return "owner"
	case !c.GetHasDriver():
		return "lacks hardware type " + n.Driver
	case !c.GetLive():
		return "not connected"
	case c.GetDraining():
		return "draining"
	case c.GetAgent() == n.PrevOwner:
		return "owner before: its acknowledgement is awaited"
	case c.GetLoad() >= c.GetCap():
		return "at the cap"
	default:
		return "could take it"
	}
}

func ownerReason(v *state.View, n *node.Node) string {
	switch {
	case n.Owner == "":
		return fmt.Sprintf("no live agent of group %q has hardware type %q", n.Group, n.Driver)
	case n.PrevOwner != "":
		return fmt.Sprintf("%s takes over once %s acknowledged, or its session ended", n.Owner, n.PrevOwner)
	}
	r := v.Ring(n.Group, n.Driver)
	order := ring.Order(string(n.ID), r.Members)
	if at := slices.Index(order, n.Owner); at > 0 {
		return fmt.Sprintf("it was placed on %s, number %d in its order, when those before it were at their cap or away; joins move nothing", n.Owner, at+1)
	} else if at == 0 {
		return fmt.Sprintf("%s is first in its order", n.Owner)
	}
	return fmt.Sprintf("%s is draining or away; the node stays until another agent can take it", n.Owner)
}

// Rebalance implements RingService.
func (s *Service) Rebalance(ctx context.Context, req *farrierv1.RebalanceRequest) (*farrierv1.RebalanceResponse, error) {
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = defaultMoves
	}
	if limit > maxMoves {
		return nil, fault.Wrap("rebalance", refusal.Invalid("limit", "%d is above %d moves", limit, maxMoves))
	}
	if _, done := s.cfg.Desk.Answered(ctx); done { // which nodes moved is not kept: their events say it
		return &farrierv1.RebalanceResponse{}, nil
	}
	v := s.cfg.Desk.View()
	moves := s.cfg.Rebalance(v, req.GetGroup(), limit)
	out := &farrierv1.RebalanceResponse{}
	for _, m := range moves {
		move := &farrierv1.RebalanceResponse_Move{Node: string(m.Node), From: m.From, To: m.To}
		if n, ok := v.Node(m.Node); ok {
			move.NodeName = n.Name
		}
		out.Moves = append(out.Moves, move)
	}
	if req.GetDryRun() || len(moves) == 0 {
		return out, nil
	}
	_, err := s.cfg.Desk.Propose(ctx, command.MoveNodes{Moves: moves})
	return out, fault.Wrap("rebalance", err)
}
