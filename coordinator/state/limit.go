package state

import (
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
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

// limit is the count of admitted flows of a class, and how many there may be.
func (s *State) limit(class limitClass) (admitted *uint32, most uint32) {
	if class == limitDeploy {
		return &s.root.deploys, s.root.settings.MaxDeploy
	}
	return &s.root.cleans, s.root.settings.MaxClean
}

// enterLimit admits a flow that opens, or leaves it queued. The clean that ends a tear down takes its place.
func (s *State) enterLimit(f *flow.Flow) {
	f.Phase = 1
	class := classOf(f.Kind)
	if class == unlimited {
		return
	}
	admitted, most := s.limit(class)
	_, waiting := s.firstQueued(class)
	if *admitted >= most || waiting && !(f.Kind == flow.Clean && s.root.queuedChanged) {
		f.Phase = 0
		return
	}
	*admitted++
}

func (s *State) leaveLimit(f *flow.Flow) {
	class := classOf(f.Kind)
	if class == unlimited || f.Queued() {
		return
	}
	admitted, _ := s.limit(class)
	*admitted--
	s.root.queuedChanged = true
}

func (s *State) firstQueued(class limitClass) (id flow.ID, found bool) {
	s.queuedFlows.ascend(queued{class: class}, func(q queued) bool {
		id, found = q.id, q.class == class
		return false
	})
	return id, found
}

// admitQueued lets queued flows start, oldest first, while their limit allows it.
func (s *State) admitQueued() {
	s.root.queuedChanged = false
	for _, class := range [...]limitClass{limitDeploy, limitClean} {
		for {
			admitted, most := s.limit(class)
			first, waiting := s.firstQueued(class)
			if !waiting || *admitted >= most {
				break
			}
			*admitted++
			j := s.jobOf(node.ID(s.flow(first).Node))
			j.flow().Phase = 1
			s.emit(EventFlowAdmit, j.n, "flow", flowText(first), "kind", j.f.Kind.String())
			j.advance()
			j.save()
		}
	}
	s.root.queuedChanged = false
}
