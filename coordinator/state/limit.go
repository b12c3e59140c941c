package state

import (
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/step"
)

// limitClass groups flows that share a concurrency limit. Unlike Ironic, which counts and then acts, the count
// is part of the entry that opens the flow; and what is over the limit waits in order instead of being refused.
type limitClass uint8

const (
	unlimited   limitClass = iota
	limitDeploy            // Deploy, Rebuild: Settings.MaxDeploy
	limitClean             // Clean, Undeploy: Settings.MaxClean
)

func classOf(k flow.Kind) limitClass {
	switch k {
	case flow.Deploy, flow.Rebuild:
		return limitDeploy
	case flow.Clean, flow.Undeploy:
		return limitClean
	default:
		return unlimited
	}
}

// queueOf is a flow's place in the queue of its limit.
func queueOf(f *flow.Flow) (queued, bool) {
	return queued{classOf(f.Kind), f.ID}, f.Queued()
}

// limit is the count of flows that count against a class, and how many there may be.
func (s *State) limit(class limitClass) (counted *uint32, most uint32) {
	if class == limitDeploy {
		return &s.root.deploys, s.root.settings.MaxDeploy
	}
	return &s.root.cleans, s.root.settings.MaxClean
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
func countedAs(n *node.Node, f *flow.Flow) limitClass {
	if f == nil || !n.FlowOpen || f.Queued() || !works(n, f) {
		return unlimited
	}
	return classOf(f.Kind)
}

// recount keeps the counts equal to what countedAs says of all flows. A place that falls free is given away before the
// command ends.
func (j *job) recount() {
	now := countedAs(j.n, j.f)
	if now != j.counted {
		j.s.uncount(j.counted)
		if now != unlimited {
			counted, _ := j.s.limit(now)
			*counted++
		}
		j.counted = now
	}
	if j.f != nil && j.f.Queued() && works(j.n, j.f) && !works(j.before, j.f) {
		j.s.root.queuedChanged = true
	}
}

func (s *State) uncount(class limitClass) {
	if class == unlimited {
		return
	}
	counted, _ := s.limit(class)
	*counted--
	s.root.queuedChanged = true
}

// enterLimit admits a flow that opens, or leaves it queued. The clean that ends a tear down takes its place.
func (s *State) enterLimit(f *flow.Flow) {
	f.Phase = 1
	class := classOf(f.Kind)
	if class == unlimited {
		return
	}
	counted, most := s.limit(class)
	if *counted >= most || len(s.nextQueued(class, 1)) > 0 && !(f.Kind == flow.Clean && s.root.queuedChanged) {
		f.Phase = 0
	}
}

// nextQueued are the oldest queued flows that could work, up to a number. Those that could not keep their places.
func (s *State) nextQueued(class limitClass, most uint32) (ids []flow.ID) {
	if most == 0 {
		return nil
	}
	s.queuedFlows.Ascend(queued{class: class}, func(q queued) bool {
		if q.class != class {
			return false
		}
		f := s.flow(q.id)
		if works(s.node(node.ID(f.Node)), f) {
			ids = append(ids, q.id)
		}
		return len(ids) < int(most)
	})
	return ids
}

// admitQueued lets queued flows start, oldest first, while their limit allows it.
func (s *State) admitQueued() {
	for s.root.queuedChanged {
		s.root.queuedChanged = false
		for _, class := range [...]limitClass{limitDeploy, limitClean} {
			counted, most := s.limit(class)
			for _, id := range s.nextQueued(class, most-min(*counted, most)) {
				j := s.jobOf(node.ID(s.flow(id).Node))
				j.flow().Phase = 1
				s.emit(EventFlowAdmit, j.n, "flow", flowText(id), "kind", j.f.Kind.String())
				j.advance()
				j.save()
			}
		}
	}
}
