package job

import (
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// places counts the flows that work, by the limit that they count against. Unlike Ironic, which counts and then acts, the count
// is part of the entry that opens the flow; and what is over the limit waits in order instead of being refused.
type places struct {
	taken   [flow.LimitClean + 1]uint32
	changed bool // one may be free: admit before the command ends
}

// count takes the places of a state that was not made by applying commands.
func (s *Jobs) count() {
	s.OpenFlows(func(f *flow.Flow) bool {
		if n := s.Node(node.ID(f.Node)); n != nil && n.Flow == f.ID {
			s.places.take(countedAs(n, f))
		}
		return true
	})
}

// free is how many more flows may work under a limit.
func (s *Jobs) free(limit flow.Limit) uint32 {
	most := s.Root.Settings.MaxClean
	if limit == flow.LimitDeploy {
		most = s.Root.Settings.MaxDeploy
	}
	return most - min(s.places.taken[limit], most)
}

func (p *places) take(limit flow.Limit) {
	if limit != flow.Unlimited {
		p.taken[limit]++
	}
}

func (p *places) give(limit flow.Limit) {
	if limit != flow.Unlimited {
		p.taken[limit]--
		p.changed = true
	}
}

// works tells whether a flow is, or may be at any moment, a load for anybody, which is what the limits bound. One whose node
// has no owner, or that maintenance holds and that does nothing but wait, is none, for as long as that lasts: if it
// counted, a rack without power would keep all others from their turn. When it goes on it counts again, at once, so
// that for a while there may be more than the limit.
func works(n *node.Node, f *flow.Flow) bool {
	if n.Owner == "" {
		return false
	}
	if st := f.Step(); st != nil && st.Attempt.Open && st.Executor != step.Wait {
		return true
	}
	return !held(n, f)
}

// countedAs is the limit that a node's open flow counts against.
func countedAs(n *node.Node, f *flow.Flow) flow.Limit {
	if f == nil || !n.FlowOpen || f.Queued() || !works(n, f) {
		return flow.Unlimited
	}
	return f.Kind.Limit()
}

// recount keeps the places equal to what countedAs says of all flows. One that falls free is given away before the command
// ends.
func (j *job) recount() {
	p := &j.s.places
	if now := countedAs(j.n, j.f); now != j.counted {
		p.give(j.counted)
		p.take(now)
		j.counted = now
	}
	if j.f != nil && j.f.Queued() && works(j.n, j.f) && !works(j.before, j.f) {
		p.changed = true
	}
}

// enterLimit admits a flow that opens, or leaves it queued. The clean that ends a tear down takes its place.
func (s *Jobs) enterLimit(f *flow.Flow) {
	f.Phase = 1
	limit := f.Kind.Limit()
	if limit == flow.Unlimited {
		return
	}
	if s.free(limit) == 0 || len(s.nextQueued(limit, 1)) > 0 && !(f.Kind == flow.Clean && s.places.changed) {
		f.Phase = 0
	}
}

// nextQueued are the oldest queued flows that could work, up to a number. Those that could not keep their places in the queue.
func (s *Jobs) nextQueued(limit flow.Limit, most uint32) (ids []flow.ID) {
	if most == 0 {
		return nil
	}
	s.Queued(limit, func(id flow.ID) bool {
		if f := s.Flow(id); works(s.Node(node.ID(f.Node)), f) {
			ids = append(ids, id)
		}
		return len(ids) < int(most)
	})
	return ids
}

// Admit lets queued flows start, oldest first, while their limit allows it.
func (s *Jobs) Admit() {
	for s.places.changed {
		s.places.changed = false
		for _, limit := range [...]flow.Limit{flow.LimitDeploy, flow.LimitClean} {
			for _, id := range s.nextQueued(limit, s.free(limit)) {
				j := s.of(node.ID(s.Flow(id).Node))
				j.flow().Phase = 1
				s.Emit(state.EventFlowAdmit, j.n, "flow", flowText(id), "kind", j.f.Kind.String())
				j.end()
			}
		}
	}
}
