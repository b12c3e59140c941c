package job

import (
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// Move makes agent, "" for nobody, the owner of a node, and goes on with its flow.
func (s *Jobs) Move(id node.ID, agent, reason string) { s.move(id, agent, reason, false) }

// Rehome is Move of a node that the command has changed: its version stays.
func (s *Jobs) Rehome(id node.ID, agent, reason string) { s.move(id, agent, reason, true) }

func (s *Jobs) move(id node.ID, agent, reason string, sameVersion bool) {
	j := s.of(id)
	j.sameVersion = sameVersion
	j.setOwner(agent, reason)
	j.end()
}

// Regrant puts the open attempt of a node, if there is one, under a new token for its owner, whose session is another.
func (s *Jobs) Regrant(id node.ID, reason string) {
	j := s.of(id)
	j.regrant(reason)
	j.end()
}

// LetGo ends a handover: agent, the owner before, has let go of the node; or it is dead, and a change that it began may still be
// on its way.
func (s *Jobs) LetGo(id node.ID, agent string, dead bool) {
	j := s.of(id)
	j.n.PrevOwner = ""
	j.s.Emit(state.EventNodeHandover, j.n, "agent", agent, "epoch", state.Num(j.n.Epoch))
	if st := j.openStep(); st != nil && dead {
		j.holdBack(st)
	}
	j.end()
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
		if a := j.s.Agent(from); a != nil && a.Session != "" {
			n.PrevOwner = from
		}
	}
	if n.PrevOwner == agent {
		n.PrevOwner = "" // it never let go
	}
	n.Owner = agent
	n.Epoch++
	j.s.Emit(state.EventNodeOwner, n, "from", from, "to", agent, "epoch", state.Num(n.Epoch), "reason", reason, "previous", n.PrevOwner)
	j.regrant(reason)
}
