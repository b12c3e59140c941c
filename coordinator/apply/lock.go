package apply

import (
	"fmt"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// locked is the refusal of a command that meets a held lock. Its caller may wait in the node's queue.
func locked(n *node.Node, op string) error {
	l := n.Lock
	holder := l.Holder
	help := fmt.Sprintf("wait, or look at it: farrier lock list; an operator may break it: farrier lock break %s --reason TEXT", label(n))
	if holder == "" {
		holder = "nobody: it waits for an agent"
		help = fmt.Sprintf("start an agent of its group, or give the work up: farrier node abort %s", label(n))
	}
	return fault.New(fault.Locked, op, "node %s is locked by %s (%s) under token %s", label(n), holder, l.Purpose, l.Token).
		WithHelp("%s", help).
		WithDetail(&fault.LockDetail{
			Node: string(n.ID), Holder: l.Holder, Session: l.Session, Task: l.Task, Purpose: l.Purpose,
			Token: uint64(l.Token), SinceUnixNano: l.Since.UnixNano(),
		})
}

// acquireLock grants the lock for work that is not a flow: of the node's owner, or of an operator.
func (s *Applier) acquireLock(c command.AcquireLock) command.Result {
	const op = "acquire lock"
	n := s.Node(c.Node)
	if n == nil {
		return refuse(noNode(c.Node, op))
	}
	if n.Lock.Held() {
		return refuse(locked(n, op))
	}
	if se := s.Session(c.Session); se != nil {
		if se.Agent != n.Owner || n.PrevOwner != "" {
			return refuse(fault.New(fault.IllegalState, op, "agent %s does not own node %s", se.Agent, label(n)))
		}
	} else if cl := s.Client(c.Session); c.Session == "" || (cl == nil || cl.Ended) && c.Session != s.Header.Request.Client {
		return refuse(fault.New(fault.Expired, op, "session %q has ended", c.Session).WithHelp("open a new one and ask again"))
	}
	j := s.jobOf(c.Node)
	j.lockOnly = true
	token := j.grant(node.Lock{Session: c.Session, Holder: state.Clip(c.Holder, state.MaxNameLen), Task: state.Clip(c.Task, state.MaxNameLen), Purpose: state.Clip(c.Purpose, state.MaxNameLen)})
	j.save()
	return command.Result{Node: c.Node, Token: token, Version: n.Version}
}

// releaseLock frees the lock if the token is the one that holds it. A flow that was kept waiting goes on in the
// same entry, ahead of callers in the queue.
func (s *Applier) releaseLock(c command.ReleaseLock) command.Result {
	const op = "release lock"
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return refuse(noNode(c.Node, op))
	case n.Lock.Token != c.Token || c.Token == 0:
		return refuse(fault.New(fault.StaleToken, op, "token %s does not hold node %s", c.Token, label(n)).
			WithHelp("the lock was broken, released or has run out: what was done under it may be undone by others; look with farrier lock list"))
	case n.Lock.Flow != 0:
		return refuse(fault.New(fault.IllegalState, op, "flow %d holds node %s; its outcome releases it", n.Lock.Flow, label(n)))
	}
	j := s.jobOf(c.Node)
	j.lockOnly = j.f == nil
	if s.quiet(&n.Lock) {
		j.n.Lock = node.Lock{}
	} else {
		j.release()
	}
	j.advance()
	j.save()
	return command.Result{Node: c.Node, Token: c.Token, Version: j.n.Version}
}

// breakLock takes the lock from its holder. The old token is refused from now on; a flow behind the lock goes on
// under a new one, or ends, as by an abort, if there is no agent that it could be given to. Token 0 breaks whatever lock
// there is.
func (s *Applier) breakLock(c command.BreakLock) command.Result {
	const op = "break lock"
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return refuse(noNode(c.Node, op))
	case !n.Lock.Held():
		return refuse(fault.New(fault.NotFound, op, "node %s is not locked", label(n)))
	case c.Token != 0 && n.Lock.Token != c.Token:
		return refuse(fault.New(fault.StaleToken, op, "node %s is locked under token %s, not %s", label(n), n.Lock.Token, c.Token).
			WithHelp("look again: farrier lock list"))
	}
	j := s.jobOf(c.Node)
	s.Emit(state.EventLockBroken, n, "token", n.Lock.Token.String(), "holder", n.Lock.Holder, "reason", state.Clip(c.Reason, 256))
	switch {
	case n.Lock.Flow == 0:
		j.n.Lock = node.Lock{}
	case n.Owner == "":
		j.requestAbort(false)
	default:
		j.regrant("lock broken")
	}
	j.advance()
	j.save()
	return command.Result{Node: c.Node, Token: j.n.Lock.Token, Version: j.n.Version}
}
