package apply

import (
	"errors"
	"fmt"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/job"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Applier is a state in the hands of its rules.
type Applier struct {
	*state.State
	jobs *job.Jobs
}

// New is the rules of the empty state: the first command must be InitCluster.
func New() *Applier { return On(state.New()) }

// On is the rules of a state, which is theirs from then on.
func On(s *state.State) *Applier {
	return &Applier{State: s, jobs: job.New(s)}
}

// Apply does one command of the log entry at index and answers with its result; Emitted has the events that it added.
// Several commands may share an index, in the order of the entry. A refused command has Result.Err, a
// *fault.Error, and changed nothing. A panic inside a command is such a refusal, of kind Internal, and raises an
// alarm, the same on every member. Apply itself panics only on a command of a type that this code does not know,
// or of a level above Level: the member must stop and be upgraded.
func (s *Applier) Apply(index uint64, c command.Command) command.Result {
	s.Begin(index, c.Header)
	res := s.apply(c.Header, c.Body)
	res.Index = index
	return res
}

// apply checks the header, answers repeats, and executes everything else.
func (s *Applier) apply(h command.Header, body command.Body) command.Result {
	if h.Level > state.Level {
		panic(fmt.Sprintf("apply: command of level %d at index %d, this member computes %d: install the version that the others run", h.Level, s.Index(), state.Level))
	}
	if err := s.admissible(h, body); err != nil {
		return command.Result{Err: err}
	}
	if stored, done := s.repeated(h.Request); done {
		return stored
	}
	res := s.guarded(body)
	if res.Err == nil {
		s.remember(h.Request, res)
	}
	return res
}

// admissible refuses what no table needs to be asked about.
func (s *Applier) admissible(h command.Header, body command.Body) error {
	_, first := body.(command.InitCluster)
	switch {
	case s.Root.Cluster.ID == "" && !first:
		return fault.New(fault.IllegalState, "apply", "the cluster has no identity yet").WithHelp("run farrier-coordinator init first")
	case s.Root.Cluster.ID != "" && h.Cluster != s.Root.Cluster.ID:
		return fault.New(fault.Denied, "apply", "the command is for cluster %q, this is %q", h.Cluster, s.Root.Cluster.ID)
	}
	return nil
}

// guarded executes a body completely or not at all.
func (s *Applier) guarded(body command.Body) (res command.Result) {
	mark := s.jobs.Mark()
	defer func() {
		if p := recover(); p != nil {
			s.jobs.Rollback(mark)
			if unknown, is := p.(unknownCommand); is {
				panic(unknown)
			}
			err := fault.New(fault.Internal, "apply", "%T at index %d failed inside: %v", body, s.Index(), p).
				WithHelp("nothing was changed; report this with the log entry")
			s.Raise(err.Error())
			res = command.Result{Err: err}
		}
	}()
	res = s.execute(body)
	if res.Err != nil {
		s.jobs.Rollback(mark)
		var loud alarmed
		if errors.As(res.Err, &loud) {
			s.Raise(loud.Error())
			res.Err = loud.err
		}
		res = command.Result{Err: typed(res.Err)}
	} else {
		s.jobs.Admit()
	}
	return res
}

func typed(err error) error {
	var e *fault.Error
	if errors.As(err, &e) {
		return err
	}
	return &fault.Error{Kind: fault.Internal, Op: "apply", Err: err}
}

func ok() command.Result              { return command.Result{} }
func refuse(err error) command.Result { return command.Result{Err: err} }

// batch applies the commands in order, each completely or not at all.
func (s *Applier) batch(b command.Batch) command.Result {
	results := make([]command.Result, len(b.Commands))
	var done uint64
	for i, body := range b.Commands {
		switch body.(type) {
		case command.Batch, command.InitCluster, command.NewGeneration, command.RecoverRoster:
			results[i] = refuse(fault.New(fault.Invalid, "apply batch", "%T cannot be part of a batch", body))
			continue
		}
		results[i] = s.guarded(body)
		results[i].Index = s.Index()
		if results[i].Err == nil {
			done++
		}
	}
	return command.Result{Results: results, Count: done}
}
