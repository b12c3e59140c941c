package apply

import (
	"slices"
	"strings"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// recordBMCSession keeps what the node's next owner has to end before its first effect. An opened session is taken
// from the owner's live session only, and not while the owner before has to let go: an agent that lost the node gets
// no new session recorded, so it cannot act under one. That a session is over is a fact, whoever says it. Nothing is
// emitted: only who becomes the owner is told, and that is an event already.
func (s *Applier) recordBMCSession(c command.RecordBMCSession) command.Result {
	const op = "record BMC session"
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return refuse(node.Missing(c.Node, op))
	case !strings.HasPrefix(c.URI, "/") || len(c.URI) > state.MaxBMCURI:
		return refuse(fault.New(fault.Invalid, op, "the session's URI is not a path of at most %d bytes", state.MaxBMCURI))
	}
	var old []command.BMCSession
	if b := s.BMCs.Find(n.ID); b != nil {
		old = b.Sessions
	}
	at := slices.IndexFunc(old, func(b command.BMCSession) bool { return b.URI == c.URI })
	if !c.Opened {
		if at >= 0 {
			s.putBMCSessions(n.ID, slices.Concat(old[:at], old[at+1:]))
		}
		return command.Result{Node: n.ID}
	}
	se := s.Session(c.Session)
	switch {
	case se == nil || se.Agent != c.Agent:
		return refuse(fault.New(fault.Expired, op, "session %q of agent %s has ended", c.Session, c.Agent))
	case n.Owner != c.Agent || n.PrevOwner != "":
		return refuse(fault.New(fault.IllegalState, op, "agent %s does not own node %s", c.Agent, n.Label()))
	case at >= 0 && at == len(old)-1 && old[at].Session == c.Session:
		return command.Result{Node: n.ID} // said again
	case at >= 0:
		old = slices.Concat(old[:at], old[at+1:])
	}
	list := append(slices.Clone(old), command.BMCSession{URI: c.URI, Agent: c.Agent, Session: c.Session})
	s.putBMCSessions(n.ID, list[max(len(list)-state.MaxBMCSessions, 0):])
	return command.Result{Node: n.ID}
}

func (s *Applier) putBMCSessions(id node.ID, list []command.BMCSession) {
	if len(list) == 0 {
		s.BMCs.Drop(&s.Log, id)
		return
	}
	s.BMCs.Put(&s.Log, &state.BMCSessions{Node: id, Sessions: list})
}

// otherBMC tells that the node is managed through another BMC than before: what is open at the old one is not to be
// looked for at the new one, where the same path may be somebody else's session.
func otherBMC(n, before *node.Node) bool {
	return n.Driver != before.Driver || n.DriverInfo["redfish_address"] != before.DriverInfo["redfish_address"]
}
