package apply

import (
	"fmt"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/job"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// The rules of work in the invariants' own words.

// paused: maintenance holds deploys and cleans that nobody has given up.
func paused(n *node.Node, f *flow.Flow) bool {
	kind := f.Kind == flow.Deploy || f.Kind == flow.Rebuild || f.Kind == flow.Clean
	return n.Maintenance && kind && f.Error == "" && !f.AbortRequested
}

// loads: somebody acts on the node, or may at any moment.
func loads(n *node.Node, f *flow.Flow) bool {
	a := f.Steps[f.Cur]
	acts := a.Attempt.Open && a.Executor != step.Wait
	return n.Owner != "" && (acts || !paused(n, f))
}

// timed: the time of the open attempt counts.
func timed(n *node.Node, f *flow.Flow) bool {
	callback := f.Step().Executor == step.Wait || f.Step().Executor == step.Ramdisk
	return n.Owner != "" && n.PrevOwner == "" && !(callback && paused(n, f))
}

// invariants are what DESIGN.md says of every state.
func (s *Applier) invariants() error {
	var err error
	fail := func(format string, args ...any) {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
	}
	tokens := map[lock.Token]node.ID{}
	admitted, waiting := map[flow.Limit]uint32{}, map[flow.Limit]uint32{}
	held, open := 0, 0
	s.Nodes.Scan(func(n *node.Node) bool {
		var f *flow.Flow
		if n.Flow != 0 {
			if f = s.Flow(n.Flow); f == nil {
				fail("node %s names flow %d, which is gone", n.ID, n.Flow)
				return false
			}
			if f.Open() != n.FlowOpen || f.Node != string(n.ID) {
				fail("node %s and flow %d disagree", n.ID, f.ID)
			}
		}
		if n.FlowOpen {
			open++
			switch limit := f.Kind.Limit(); {
			case limit == flow.Unlimited || !loads(n, f):
			case f.Phase == 0:
				waiting[limit]++
			default:
				admitted[limit]++
			}
			s.checkFlow(n, f, fail)
		} else if n.Provision.Transient() || n.Provision.Waiting() {
			fail("node %s is %s without a flow", n.ID, n.Provision)
		}
		s.checkLock(n, tokens, fail)
		if n.Lock.Held() {
			held++
		}
		if n.Provision == lifecycle.Available && n.Tenanted && n.Wipe == nil {
			fail("node %s is available with a tenant's data", n.ID)
		}
		if len(n.Written) > 0 && (!n.Tenanted || n.Wipe != nil || n.Provision == lifecycle.Available) {
			fail("node %s is %s with images on %v: tenanted %v, wipe %+v", n.ID, n.Provision, n.Written, n.Tenanted, n.Wipe)
		}
		if w := n.Wipe; w != nil && (w.Method == node.WipeWaiver) != (len(w.Disks) == 0) {
			fail("node %s was wiped by %s: %v", n.ID, w.Method, w.Disks)
		}
		if n.Provision == lifecycle.Active && n.Instance.ImageDigest != n.Instance.ImageSHA {
			fail("node %s is active without a verified image", n.ID)
		}
		if n.TargetProvision == n.Provision || n.Provision.Stable() && n.TargetProvision != lifecycle.None {
			fail("node %s is %s with target %s", n.ID, n.Provision, n.TargetProvision)
		}
		if n.Owner != "" {
			if a := s.Agent(n.Owner); a == nil || a.Session == "" || s.Session(a.Session) == nil || a.Group != n.Group || !a.HasDriver(n.Driver) {
				fail("node %s is owned by %q, which cannot serve it", n.ID, n.Owner)
			}
		}
		if n.PrevOwner != "" && (n.PrevOwner == n.Owner || s.Agent(n.PrevOwner).Session == "") {
			fail("node %s waits for %q", n.ID, n.PrevOwner)
		}
		return err == nil
	})
	locked, running := 0, 0
	s.Locked(func(node.ID) bool { locked++; return true })
	s.OpenFlows(func(*flow.Flow) bool { running++; return true })
	if held != locked || open != running {
		fail("%d locks and %d flows, indexes say %d and %d", held, open, locked, running)
	}
	if s.Flows.Len() > s.Nodes.Len() {
		fail("%d flows of %d nodes", s.Flows.Len(), s.Nodes.Len())
	}
	if admitted[flow.LimitDeploy] != s.jobs.AtWork(flow.LimitDeploy) || admitted[flow.LimitClean] != s.jobs.AtWork(flow.LimitClean) {
		fail("%v flows work, counted are %d and %d", admitted, s.jobs.AtWork(flow.LimitDeploy), s.jobs.AtWork(flow.LimitClean))
	}
	if waiting[flow.LimitDeploy] > 0 && admitted[flow.LimitDeploy] < s.Root.Settings.MaxDeploy || waiting[flow.LimitClean] > 0 && admitted[flow.LimitClean] < s.Root.Settings.MaxClean {
		fail("%v flows are queued although only %v work", waiting, admitted)
	}
	type holder struct{ role, name string }
	believed := map[holder]bool{}
	s.Certificates.Scan(func(c *state.Certificate) bool {
		h := holder{c.Role, c.Name}
		if believed[h] && c.RevokedBy == "" && c.Role != state.RoleOperator {
			fail("two keys of %s %s are believed", c.Role, c.Name)
		}
		believed[h] = believed[h] || c.RevokedBy == ""
		return true
	})
	s.Agents.Scan(func(a *state.Agent) bool {
		if se := s.Session(a.Session); a.Session != "" && (se == nil || se.Agent != a.Name) {
			fail("agent %s names session %s", a.Name, a.Session)
		}
		return true
	})
	return err
}

func (s *Applier) checkLock(n *node.Node, tokens map[lock.Token]node.ID, fail func(string, ...any)) {
	l := n.Lock
	if !l.Held() {
		return
	}
	if other, dup := tokens[l.Token]; dup {
		fail("token %s holds %s and %s", l.Token, other, n.ID)
	}
	tokens[l.Token] = n.ID
	if l.Token > n.Token || l.Token.Counter() > s.Root.Cluster.Tokens && l.Token.Generation() == s.Root.Cluster.Generation {
		fail("node %s is locked under %s, its highest is %s", n.ID, l.Token, n.Token)
	}
	switch {
	case l.Flow != 0 && (l.Flow != n.Flow || !n.FlowOpen):
		fail("node %s is locked by flow %d, which is not open", n.ID, l.Flow)
	case l.Session == "" && (l.Flow == 0 || n.Owner != ""):
		fail("node %s is locked by no session", n.ID)
	case l.Session != "" && s.Session(l.Session) == nil && (s.Client(l.Session) == nil || s.Client(l.Session).Ended):
		fail("node %s is locked by session %s, which has ended", n.ID, l.Session)
	}
}

// checkFlow checks an open flow against its node.
func (s *Applier) checkFlow(n *node.Node, f *flow.Flow, fail func(string, ...any)) {
	attempts := 0
	for i := range f.Steps {
		if f.Steps[i].Attempt.Open {
			attempts++
			if i != f.Cur {
				fail("flow %d has an open attempt of step %d, it is at %d", f.ID, i, f.Cur)
			}
		}
	}
	if attempts > 1 {
		fail("flow %d has %d open attempts", f.ID, attempts)
	}
	st := f.Step()
	if st == nil {
		fail("flow %d is at step %d of %d", f.ID, f.Cur, len(f.Steps))
		return
	}
	mine := n.Lock.Held() && n.Lock.Flow == f.ID
	acting := st.Attempt.Open && (st.Executor == step.BMC || st.Executor == step.Agent)
	if acting != mine {
		fail("flow %d: %s is open: %v, lock is the flow's: %v", f.ID, st.FullName(), st.Attempt.Open, mine)
	}
	if st.Attempt.Open && timed(n, f) != (st.Attempt.Deadline != 0) {
		fail("flow %d: owner %q, previous %q, maintenance %v, and %s has the deadline %s", f.ID, n.Owner, n.PrevOwner, n.Maintenance, st.FullName(), st.Attempt.Deadline)
	}
	if f.AbortRequested && n.Orphaned() {
		fail("flow %d is to end and nobody can end it", f.ID)
	}
	if acting && st.Attempt.Token != n.Lock.Token {
		fail("flow %d runs under %s, the lock has %s", f.ID, st.Attempt.Token, n.Lock.Token)
	}
	if st.Attempt.Open && st.Executor == step.Ramdisk && st.Attempt.Token != n.Token && n.Owner != "" && !n.Lock.Held() && n.Token < st.Attempt.Token {
		fail("flow %d: the ramdisk runs under %s, the node's highest is %s", f.ID, st.Attempt.Token, n.Token)
	}
	if job.Resumable(s.View(), f) {
		fail("flow %d is idle at %s although nothing stands in its way", f.ID, st.FullName())
	}
	if st.Attempt.Open && f.Kind.Boots() && n.Provision.Waiting() == acting {
		fail("flow %d: node is %s while %s runs", f.ID, n.Provision, st.FullName())
	}
}
