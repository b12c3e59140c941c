package state

import (
	"slices"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/pkg/fault"
)

func (s *State) putAgent(a *Agent) {
	clear(s.memberCache)
	s.agents.Put(&s.log, a)
}

// bumpRings raises the epochs of the rings that an agent was or is a member of.
func (s *State) bumpRings(before, after *Agent) {
	keys := make([]pair, 0, len(before.Drivers)+len(after.Drivers))
	for _, a := range []*Agent{before, after} {
		for _, driver := range a.Drivers {
			if key := (pair{a.Group, driver}); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	for _, key := range keys {
		r := Ring{Group: key.key, Driver: key.id}
		if old := s.rings.Find(key); old != nil {
			r = *old
		}
		r.Epoch++
		s.rings.Put(&s.log, &r)
		s.emit(EventRingEpoch, nil, "group", r.Group, "driver", r.Driver, "epoch", num(r.Epoch))
	}
}

// place is the agent that a node should go to, "" when no live agent can take it. The node is in the table.
func (s *State) place(n *node.Node) string { return s.placeAmong(n, 0) }

// placeNew is place for a node that is not in the tables yet.
func (s *State) placeNew(n *node.Node) string { return s.placeAmong(n, 1) }

// placeAmong places n with so many more nodes in its ring than the tables have.
func (s *State) placeAmong(n *node.Node, more int) string {
	key := pair{n.Group, n.Driver}
	members, cached := s.memberCache[key]
	if !cached {
		members = s.ringMembers(n.Group, n.Driver)
		s.memberCache[key] = members
	}
	total, _ := s.ringTotals.Get(count{group: n.Group, driver: n.Driver})
	agent, _ := ring.Place(string(n.ID), members, func(agent string) int {
		c, _ := s.ringNodes.Get(count{group: n.Group, driver: n.Driver, agent: agent})
		return c.n
	}, max(total.n+more, 1))
	return agent
}

// welcome gives an agent that came the nodes that nobody could take, and those that draining agents kept because nobody else
// could take them.
func (s *State) welcome(a *Agent) {
	if a.Draining {
		return
	}
	s.placeUnowned(a)
	var draining []string
	s.agents.Scan(func(b *Agent) bool {
		if b.Draining && b.Session != "" && b.Group == a.Group {
			draining = append(draining, b.Name)
		}
		return true
	})
	for _, name := range draining {
		s.evacuate(name, "drain")
	}
}

func (s *State) placeUnowned(a *Agent) {
	for _, id := range s.ids(&s.nodesOf, "") {
		if n := s.node(id); n.Group == a.Group && a.HasDriver(n.Driver) {
			j := s.jobOf(id)
			j.setOwner(s.place(n), "agent came")
			j.advance()
			j.save()
		}
	}
}

// setDrain starts or ends draining. Draining moves every node that another agent can take, at once: each new
// owner acts when the drained agent has let go.
func (s *State) setDrain(c command.SetDrain) command.Result {
	old := s.agent(c.Agent)
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
	s.putAgent(&a)
	s.bumpRings(old, &a)
	moved := 0
	if c.On {
		moved = s.evacuate(a.Name, "drain")
	} else if a.Session != "" {
		s.welcome(&a)
	}
	s.emit(EventAgentDrain, nil, "agent", a.Name, "on", text(c.On), "moving", num(moved))
	return command.Result{Count: uint64(moved)}
}

// evacuate moves an agent's nodes to the others. Nodes that nobody else can take stay.
func (s *State) evacuate(agent, reason string) (moved int) {
	for _, id := range s.ids(&s.nodesOf, agent) {
		j := s.jobOf(id)
		if to := s.place(j.n); to != "" && to != agent {
			j.setOwner(to, reason)
			j.save()
			moved++
		}
	}
	return moved
}

// removeAgent ends the agent's session, revokes its certificates and forgets it, but for its name: it must join again with a
// token. An agent that joined and never came has certificates only.
func (s *State) removeAgent(c command.RemoveAgent) command.Result {
	old := s.agent(c.Agent)
	revoked := s.revoke(roleAgent, c.Agent, [32]byte{}, "it was removed")
	if old == nil || old.Removed {
		if revoked > 0 {
			return ok()
		}
		return refuse(noAgentNamed(c.Agent))
	}
	nodes := len(s.ids(&s.nodesOf, c.Agent))
	if old.Session != "" {
		s.endSession(old.Session, "agent removed")
	}
	s.putAgent(&Agent{Name: c.Agent, Removed: true, EndedAt: s.root.elapsed})
	s.emit(EventAgentRemoved, nil, "agent", c.Agent, "moved", num(nodes))
	return command.Result{Count: uint64(nodes)}
}

func noAgentNamed(name string) error {
	return fault.New(fault.NotFound, "find agent", "there is no agent %q", name).WithHelp("farrier agent list")
}

// moveNodes hands resting nodes over. A move that no longer holds is left out; Count is how many were made.
func (s *State) moveNodes(c command.MoveNodes) command.Result {
	const most = 1000
	if len(c.Moves) > most {
		return refuse(fault.New(fault.TooLarge, "move nodes", "at most %d moves in one command", most))
	}
	var moved uint64
	for _, m := range c.Moves {
		n, to := s.node(m.Node), s.agent(m.To)
		if n == nil || to == nil || to.Session == "" || to.Draining || n.Owner != m.From || m.From == m.To ||
			n.FlowOpen || n.Lock.Held() || n.PrevOwner != "" || n.Group != to.Group || !to.HasDriver(n.Driver) {
			continue
		}
		j := s.jobOf(m.Node)
		j.setOwner(m.To, "rebalance")
		j.save()
		moved++
	}
	return command.Result{Count: moved}
}

// handoverAck lets the new owner act. An acknowledgement of an earlier epoch changes nothing.
func (s *State) handoverAck(c command.HandoverAck) command.Result {
	n := s.node(c.Node)
	if n == nil || n.PrevOwner != c.Agent || n.PrevOwner == "" || n.Epoch != c.Epoch {
		return command.Result{Flags: command.FlagLate}
	}
	j := s.jobOf(c.Node)
	j.acknowledged(c.Agent, false)
	j.advance()
	j.save()
	return command.Result{Node: c.Node, Version: j.n.Version}
}

// acknowledged ends a handover: the old owner let go, or its session is over and a change that it began may
// still be on its way.
func (j *job) acknowledged(agent string, dead bool) {
	j.n.PrevOwner = ""
	j.s.emit(EventNodeHandover, j.n, "agent", agent, "epoch", num(j.n.Epoch))
	if st := j.openStep(); st != nil && dead {
		j.holdBack(st)
	}
}

// setOwner makes agent ("" for nobody) the node's owner. The old owner, while it lives, has to let go first;
// work that is under way goes on under a new token.
func (j *job) setOwner(agent, reason string) {
	n := j.n
	if n.Owner == agent {
		return
	}
	from := n.Owner
	if n.PrevOwner == "" && from != "" {
		if a := j.s.agent(from); a != nil && a.Session != "" {
			n.PrevOwner = from
		}
	}
	if n.PrevOwner == agent {
		n.PrevOwner = "" // it never let go
	}
	n.Owner = agent
	n.Epoch++
	j.s.emit(EventNodeOwner, n, "from", from, "to", agent, "epoch", num(n.Epoch), "reason", reason, "previous", n.PrevOwner)
	j.regrant(reason)
}

func text(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
