package job

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// acquireLock grants the lock for work that is not a flow: of the node's owner, or of an operator.
func (s *Jobs) acquireLock(c command.AcquireLock) command.Result {
	const op = "acquire lock"
	n := s.Node(c.Node)
	if n == nil {
		return refuse(node.Missing(c.Node, op))
	}
	if n.Lock.Held() {
		return refuse(n.Locked(op))
	}
	if se := s.Session(c.Session); se != nil {
		if se.Agent != n.Owner || n.PrevOwner != "" {
			return refuse(fault.New(fault.IllegalState, op, "agent %s does not own node %s", se.Agent, n.Label()))
		}
	} else if cl := s.Client(c.Session); c.Session == "" || (cl == nil || cl.Ended) && c.Session != s.Header.Request.Client {
		return refuse(fault.New(fault.Expired, op, "session %q has ended", c.Session).WithHelp("open a new one and ask again"))
	}
	j := s.of(c.Node)
	j.sameVersion = true
	token := j.grant(node.Lock{Session: c.Session, Holder: state.Clip(c.Holder, state.MaxNameLen), Task: state.Clip(c.Task, state.MaxNameLen), Purpose: state.Clip(c.Purpose, state.MaxNameLen)})
	j.save()
	return command.Result{Node: c.Node, Token: token, Version: n.Version}
}

// releaseLock frees the lock if the token is the one that holds it. A flow that was kept waiting goes on in the
// same entry, ahead of callers in the queue.
func (s *Jobs) releaseLock(c command.ReleaseLock) command.Result {
	const op = "release lock"
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return refuse(node.Missing(c.Node, op))
	case n.Lock.Token != c.Token || c.Token == 0:
		return refuse(fault.New(fault.StaleToken, op, "token %s does not hold node %s", c.Token, n.Label()).
			WithHelp("the lock was broken, released or has run out: what was done under it may be undone by others; look with farrier lock list"))
	case n.Lock.Flow != 0:
		return refuse(fault.New(fault.IllegalState, op, "flow %d holds node %s; its outcome releases it", n.Lock.Flow, n.Label()))
	}
	j := s.of(c.Node)
	j.sameVersion = j.f == nil
	if s.quiet(&n.Lock) {
		j.n.Lock = node.Lock{}
	} else {
		j.release()
	}
	j.end()
	return command.Result{Node: c.Node, Token: c.Token, Version: j.n.Version}
}

// breakLock takes the lock from its holder. The old token is refused from now on; a flow behind the lock goes on
// under a new one, or ends, as by an abort, if there is no agent that it could be given to. Token 0 breaks whatever lock
// there is.
func (s *Jobs) breakLock(c command.BreakLock) command.Result {
	const op = "break lock"
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return refuse(node.Missing(c.Node, op))
	case !n.Lock.Held():
		return refuse(fault.New(fault.NotFound, op, "node %s is not locked", n.Label()))
	case c.Token != 0 && n.Lock.Token != c.Token:
		return refuse(fault.New(fault.StaleToken, op, "node %s is locked under token %s, not %s", n.Label(), n.Lock.Token, c.Token).
			WithHelp("look again: farrier lock list"))
	}
	j := s.of(c.Node)
	s.Emit(state.EventLockBroken, n, "token", n.Lock.Token.String(), "holder", n.Lock.Holder, "reason", state.Clip(c.Reason, 256))
	switch {
	case n.Lock.Flow == 0:
		j.n.Lock = node.Lock{}
	case n.Owner == "":
		j.requestAbort(false)
	default:
		j.regrant("lock broken")
	}
	j.end()
	return command.Result{Node: c.Node, Token: j.n.Lock.Token, Version: j.n.Version}
}
