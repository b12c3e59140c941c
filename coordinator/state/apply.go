package state

import (
	"errors"
	"fmt"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/table"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Level is the highest feature level that this code computes.
const Level = 1

// State is the replicated state. It belongs to one goroutine: see the package's documentation.
type State struct {
	data
	packed      node.ID // how far packSome came
	near        table.Cursor[node.ID, node.Node]
	memberCache map[pair][]ring.Member // of ringMembers; cleared when an agent changes

	// The command in work.
	header  command.Header
	log     table.Log
	emitted []*event
}

// New is the empty state: the first command must be InitCluster.
func New() *State {
	s := &State{memberCache: map[pair][]ring.Member{}}
	s.data.init()
	s.near = table.NewCursor(&s.nodes)
	return s
}

// Apply does one command of the log entry at index and answers with its result; Emitted has the events that it added.
// Several commands may share an index, in the order of the entry. A refused command has Result.Err, a
// *fault.Error, and changed nothing. A panic inside a command is such a refusal, of kind Internal, and raises an
// alarm, the same on every member. Apply itself panics only on a command of a type that this code does not know,
// or of a level above Level: the member must stop and be upgraded.
func (s *State) Apply(index uint64, c command.Command) command.Result {
	s.begin(index, c.Header)
	res := s.apply(c.Header, c.Body)
	res.Index = index
	return res
}

// Emitted is the events that the newest Apply added.
func (s *State) Emitted() []Event {
	events := make([]Event, len(s.emitted))
	for i, e := range s.emitted {
		events[i] = fromStored(e)
	}
	return events
}

// Hash compares replicas: equal logs have equal hashes.
func (s *State) Hash() [16]byte { return s.data.hash() }

func (s *State) begin(index uint64, h command.Header) {
	if index != s.root.index {
		s.root.index, s.root.ordinal = index, 0
	}
	s.header = h
	s.log.Begin()
	clear(s.emitted)
	s.emitted = s.emitted[:0]
}

// apply checks the header, answers repeats, and executes everything else.
func (s *State) apply(h command.Header, body command.Body) command.Result {
	if h.Level > Level {
		panic(fmt.Sprintf("state: command of level %d at index %d, this member computes %d: install the version that the others run", h.Level, s.root.index, Level))
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
func (s *State) admissible(h command.Header, body command.Body) error {
	_, first := body.(command.InitCluster)
	switch {
	case s.root.cluster.ID == "" && !first:
		return fault.New(fault.IllegalState, "apply", "the cluster has no identity yet").WithHelp("run farrier-coordinator init first")
	case s.root.cluster.ID != "" && h.Cluster != s.root.cluster.ID:
		return fault.New(fault.Denied, "apply", "the command is for cluster %q, this is %q", h.Cluster, s.root.cluster.ID)
	}
	return nil
}

// guarded executes a body completely or not at all.
func (s *State) guarded(body command.Body) (res command.Result) {
	mark := s.mark()
	defer func() {
		if p := recover(); p != nil {
			s.rollback(mark)
			if unknown, is := p.(unknownCommand); is {
				panic(unknown)
			}
			err := fault.New(fault.Internal, "apply", "%T at index %d failed inside: %v", body, s.root.index, p).
				WithHelp("nothing was changed; report this with the log entry")
			s.raise(err.Error())
			res = command.Result{Err: err}
		}
	}()
	res = s.execute(body)
	if res.Err != nil {
		s.rollback(mark)
		var loud alarmed
		if errors.As(res.Err, &loud) {
			s.raise(loud.Error())
			res.Err = loud.err
		}
		res = command.Result{Err: typed(res.Err)}
	} else if s.root.queuedChanged {
		s.admitQueued()
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

// mark is where a command began.
type mark struct {
	log, emitted int
	root         root
}

func (s *State) mark() mark { return mark{s.log.Mark(), len(s.emitted), s.root} }

func (s *State) rollback(m mark) {
	clear(s.memberCache)
	s.log.Rollback(m.log)
	s.emitted = s.emitted[:m.emitted]
	s.root = m.root
}

// raise adds an alarm, unless the same is among those that are kept.
func (s *State) raise(text string) {
	seen := false
	s.alarms.Scan(func(a *Alarm) bool { seen = a.Text == text; return !seen })
	if seen {
		return
	}
	s.root.alarms++
	s.alarms.Put(&s.log, &Alarm{ID: s.root.alarms, Index: s.root.index, At: s.header.At, Text: text})
	if s.alarms.Len() > MaxAlarms {
		oldest, _ := s.alarms.First()
		s.alarms.Drop(&s.log, oldest)
	}
	s.emit(EventAlarm, nil, "text", text)
}

func ok() command.Result              { return command.Result{} }
func refuse(err error) command.Result { return command.Result{Err: err} }

// batch applies the commands in order, each completely or not at all.
func (s *State) batch(b command.Batch) command.Result {
	results := make([]command.Result, len(b.Commands))
	var done uint64
	for i, body := range b.Commands {
		switch body.(type) {
		case command.Batch, command.InitCluster, command.NewGeneration, command.RecoverRoster:
			results[i] = refuse(fault.New(fault.Invalid, "apply batch", "%T cannot be part of a batch", body))
			continue
		}
		results[i] = s.guarded(body)
		results[i].Index = s.root.index
		if results[i].Err == nil {
			done++
		}
	}
	return command.Result{Results: results, Count: done}
}
