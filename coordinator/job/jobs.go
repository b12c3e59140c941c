package job

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// Jobs takes the nodes of a state in hand, and counts those whose flows work.
type Jobs struct {
	*state.State
	places places
}

// New is the jobs of a state.
func New(s *state.State) *Jobs {
	jobs := &Jobs{State: s}
	jobs.count()
	return jobs
}

// Do does a command that is about one node's work: a verb, a report, a lock. mine is false when it is none of those.
func (s *Jobs) Do(body command.Body) (res command.Result, mine bool) {
	switch c := body.(type) {
	case command.SetMaintenance:
		res = s.setMaintenance(c)
	case command.WaiveWipe:
		res = s.waiveWipe(c)
	case command.Provision:
		res = s.provision(c)
	case command.SetPower:
		res = s.setPowerState(c)
	case command.Outcome:
		res = s.outcome(c)
	case command.Edge:
		res = s.edge(c)
	case command.PowerSeen:
		res = s.powerSeen(c)
	case command.Timeout:
		res = s.timeout(c)
	case command.Resume:
		res = s.resume(c)
	case command.AcquireLock:
		res = s.acquireLock(c)
	case command.ReleaseLock:
		res = s.releaseLock(c)
	case command.BreakLock:
		res = s.breakLock(c)
	default:
		return res, false
	}
	return res, true
}

// Mark is how far a command has come, the state included.
type Mark struct {
	state  state.Mark
	places places
}

// Mark is where to come back to by Rollback.
func (s *Jobs) Mark() Mark { return Mark{s.State.Mark(), s.places} }

// Rollback takes back everything since a Mark of the command in work.
func (s *Jobs) Rollback(m Mark) {
	s.State.Rollback(m.state)
	s.places = m.places
}

// AtWork is how many flows count against a limit.
func (s *Jobs) AtWork(limit flow.Limit) uint32 { return s.places.taken[limit] }

// LimitsChanged says that the settings have other limits than before. Admit looks.
func (s *Jobs) LimitsChanged() { s.places.changed = true }

// Forget closes and drops the flow of a node that is deleted: reports of it are late from then on.
func (s *Jobs) Forget(n *node.Node) {
	if n.FlowOpen {
		f := s.Flow(n.Flow)
		s.places.give(countedAs(n, f))
		s.Emit(state.EventFlowClosed, n, "flow", flowText(f.ID), "kind", f.Kind.String(), "status", flow.Aborted.String(), "error", "the node was deleted")
	}
	if n.Flow != 0 {
		s.Flows.Drop(&s.Log, n.Flow)
	}
}

// FreeLocksOf frees the locks that a session holds and no flow stands behind.
func (s *Jobs) FreeLocksOf(session string) {
	var ids []node.ID
	s.Locked(func(id node.ID) bool {
		if n := s.Node(id); n.Lock.Session == session && n.Lock.Flow == 0 {
			ids = append(ids, id)
		}
		return true
	})
	for _, id := range ids {
		j := s.of(id)
		j.release()
		j.end()
	}
}

func refuse(err error) command.Result { return command.Result{Err: err} }
