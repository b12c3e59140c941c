package apply

import (
	"slices"
	"strconv"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// bumpRings raises the epochs of the rings that an agent was or is a member of.
func (s *Applier) bumpRings(before, after *state.Agent) {
	keys := make([]state.RingKey, 0, len(before.Drivers)+len(after.Drivers))
	for _, a := range []*state.Agent{before, after} {
		for _, driver := range a.Drivers {
			if key := (state.RingKey{Group: a.Group, Driver: driver}); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	for _, key := range keys {
		r := state.Ring{Group: key.Group, Driver: key.Driver}
		if old := s.Rings.Find(key); old != nil {
			r = *old
		}
		r.Epoch++
		s.Rings.Put(&s.Log, &r)
		s.Emit(state.EventRingEpoch, nil, "group", r.Group, "driver", r.Driver, "epoch", state.Num(r.Epoch))
	}
}

// place is the agent that a node should go to, "" when no live agent can take it. The node is in the table.
func (s *Applier) place(n *node.Node) string { return s.placeAmong(n, 0) }

// placeNew is place for a node that is not in the tables yet.
func (s *Applier) placeNew(n *node.Node) string { return s.placeAmong(n, 1) }

// placeAmong places n with so many more nodes in its ring than the tables have.
func (s *Applier) placeAmong(n *node.Node, more int) string {
	key := state.RingKey{Group: n.Group, Driver: n.Driver}
	agent, _ := ring.Place(string(n.ID), s.RingMembers(key), func(agent string) int { return s.RingLoad(key, agent) }, max(s.RingSize(key)+more, 1))
	return agent
}

// welcome gives an agent that came the nodes that nobody could take, and those that draining agents kept because nobody else
// could take them.
func (s *Applier) welcome(a *state.Agent) {
	if a.Draining {
		return
	}
	s.placeUnowned(a)
	var draining []string
	s.Agents.Scan(func(b *state.Agent) bool {
		if b.Draining && b.Session != "" && b.Group == a.Group {
			draining = append(draining, b.Name)
		}
		return true
	})
	for _, name := range draining {
		s.evacuate(name, "drain")
	}
}

func (s *Applier) placeUnowned(a *state.Agent) {
	for _, id := range s.NodesOf("") {
		if n := s.Node(id); n.Group == a.Group && a.HasDriver(n.Driver) {
			s.jobs.Move(id, s.place(n), "agent came")
		}
	}
}

// setDrain starts or ends draining. Draining moves every node that another agent can take, at once: each new
// owner acts when the drained agent has let go.
func (s *Applier) setDrain(c command.SetDrain) command.Result {
	old := s.Agent(c.Agent)
	if old == nil || old.Removed {
		return refuse(noAgentNamed(c.Agent))
	}
	if old.Draining == c.On { // asked again: somebody may have come who can take what stayed
		if !c.On {
			return ok()
		}
		return command.Result{Count: uint64(s.evacuate(old.Name, "drain"))}
	}
	a := *old
	a.Draining = c.On
	s.Agents.Put(&s.Log, &a)
	s.bumpRings(old, &a)
	moved := 0
	if c.On {
		moved = s.evacuate(a.Name, "drain")
	} else if a.Session != "" {
		s.welcome(&a)
	}
	s.Emit(state.EventAgentDrain, nil, "agent", a.Name, "on", strconv.FormatBool(c.On), "moving", state.Num(moved))
	return command.Result{Count: uint64(moved)}
}

// evacuate moves an agent's nodes to the others. Nodes that nobody else can take stay.
func (s *Applier) evacuate(agent, reason string) (moved int) {
	for _, id := range s.NodesOf(agent) {
		if to := s.place(s.Node(id)); to != "" && to != agent {
			s.jobs.Move(id, to, reason)
			moved++
		}
	}
	return moved
}

// removeAgent ends the agent's session, revokes its certificates and forgets it, but for its name: it must join again with a
// token. An agent that joined and never came has certificates only.
func (s *Applier) removeAgent(c command.RemoveAgent) command.Result {
	old := s.Agent(c.Agent)
	revoked := s.revoke(state.RoleAgent, c.Agent, [32]byte{}, "it was removed")
	if old == nil || old.Removed {
		if revoked > 0 {
			return ok()
		}
		return refuse(noAgentNamed(c.Agent))
	}
	nodes := len(s.NodesOf(c.Agent))
	if old.Session != "" {
		s.endSession(old.Session, "agent removed")
	}
	s.Agents.Put(&s.Log, &state.Agent{Name: c.Agent, Removed: true, EndedAt: s.Root.Elapsed})
	s.Emit(state.EventAgentRemoved, nil, "agent", c.Agent, "moved", state.Num(nodes))
	return command.Result{Count: uint64(nodes)}
}

func noAgentNamed(name string) error {
	return fault.New(fault.NotFound, "find agent", "there is no agent %q", name).WithHelp("farrier agent list")
}

// moveNodes hands resting nodes over. A move that no longer holds is left out; Count is how many were made.
func (s *Applier) moveNodes(c command.MoveNodes) command.Result {
	const most = 1000
	if len(c.Moves) > most {
		return refuse(fault.New(fault.TooLarge, "move nodes", "at most %d moves in one command", most))
	}
	var moved uint64
	for _, m := range c.Moves {
		n, to := s.Node(m.Node), s.Agent(m.To)
		if n == nil || to == nil || to.Session == "" || to.Draining || n.Owner != m.From || m.From == m.To ||
			n.FlowOpen || n.Lock.Held() || n.PrevOwner != "" || n.Group != to.Group || !to.HasDriver(n.Driver) {
			continue
		}
		s.jobs.Move(m.Node, m.To, "rebalance")
		moved++
	}
	return command.Result{Count: moved}
}

// handoverAck lets the new owner act. An acknowledgement of an earlier epoch changes nothing.
func (s *Applier) handoverAck(c command.HandoverAck) command.Result {
	n := s.Node(c.Node)
	if n == nil || n.PrevOwner != c.Agent || n.PrevOwner == "" || n.Epoch != c.Epoch {
		return command.Result{Flags: command.FlagLate}
	}
	s.jobs.LetGo(c.Node, c.Agent, false)
	return command.Result{Node: c.Node, Version: s.Node(c.Node).Version}
}
