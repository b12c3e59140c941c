package apply

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// repeated answers a request that was done before. Only successes are stored: a refused command changed
// nothing, so doing it again is doing it once; a command that met a held lock is proposed again by its queue.
func (s *Applier) repeated(r command.RequestID) (command.Result, bool) {
	if r.IsZero() {
		return command.Result{}, false
	}
	const op = "check request id"
	if len(r.Client) > 64 || r.Seq == 0 {
		return refuse(fault.New(fault.Invalid, op, "a request id is a client session of at most 64 bytes and a sequence above 0")), true
	}
	c := s.Client(r.Client)
	if c == nil {
		if s.Clients.Len() >= state.MaxClients && !s.anyEnded() {
			return refuse(fault.New(fault.Busy, op, "%d client sessions are in use", state.MaxClients).
				WithHelp("a session that is not used ends after %s: try again later", state.ClientIdle)), true
		}
		return command.Result{}, false
	}
	if c.Actor != s.Header.Actor {
		return refuse(fault.New(fault.Denied, op, "the client session belongs to somebody else").WithHelp("draw a new client session id")), true
	}
	a := s.Answers.Find(state.AnswerKey{Client: r.Client, Seq: r.Seq})
	switch {
	case a == nil && r.Seq > c.Floor:
		return command.Result{}, false
	case a == nil || a.Gone:
		return refuse(fault.New(fault.UnknownOutcome, op, "the answer to request %d of this client session is gone", r.Seq).
			WithHelp("read whether it was done; if not, ask again with a new client session")), true
	case a.Digest != r.Digest:
		return refuse(fault.New(fault.Invalid, op, "request %d of this client session was another one", r.Seq).
			WithHelp("a program error of the client: each request needs its own sequence")), true
	}
	res := a.Result
	res.Flags |= command.FlagRepeat
	return res, true
}

// remember stores the answer to a request, and drops the oldest beyond state.MaxAnswers.
func (s *Applier) remember(r command.RequestID, res command.Result) {
	if r.IsZero() {
		return
	}
	res.Index = s.Index()
	c := state.Client{ID: r.Client, Actor: s.Header.Actor}
	if old := s.Client(r.Client); old != nil {
		c = *old
	} else {
		s.makeRoomForClient()
	}
	c.Ended, c.UsedAt, c.High, c.Count = false, s.Root.Elapsed, max(c.High, r.Seq), c.Count+1
	a := &state.Answer{Client: r.Client, Seq: r.Seq, Digest: r.Digest, Result: res}
	if answerSize(&res) > state.MaxAnswerSize {
		a.Gone, a.Result = true, command.Result{Index: res.Index}
	}
	s.Answers.Put(&s.Log, a)
	if c.Count > state.MaxAnswers {
		s.Answers.Ascend(state.AnswerKey{Client: c.ID}, func(oldest *state.Answer) bool {
			c.Floor = max(c.Floor, oldest.Seq)
			c.Count--
			s.Answers.Drop(&s.Log, state.AnswerKey{Client: c.ID, Seq: oldest.Seq})
			return false
		})
	}
	s.Clients.Put(&s.Log, &c)
}

// answerSize is about what the answer takes when it is written.
func answerSize(r *command.Result) int {
	size := 64 + len(r.Node) + len(r.Session)
	for i := range r.Results {
		size += answerSize(&r.Results[i])
		if err := r.Results[i].Err; err != nil {
			size += len(err.Error())
		}
	}
	return size
}

// makeRoomForClient forgets, when there are too many, the ended client session that was not used for the longest time. There
// is one: repeated refused the request otherwise, because a live session has answers and locks that its holder counts on.
func (s *Applier) makeRoomForClient() {
	if s.Clients.Len() < state.MaxClients {
		return
	}
	if idlest, some := s.IdlestClient(); some {
		s.Clients.Drop(&s.Log, idlest)
	}
}

func (s *Applier) anyEnded() bool { _, some := s.IdlestClient(); return some }

// endClient drops the answers of a client session and frees the locks that it holds. What it asked for stays
// unrepeatable: High is kept.
func (s *Applier) endClient(id string) {
	c := s.Client(id)
	if c == nil || c.Ended {
		return
	}
	next := *c
	next.Ended, next.Floor, next.Count = true, c.High, 0
	var seqs []uint64
	s.Answers.Ascend(state.AnswerKey{Client: id}, func(a *state.Answer) bool {
		if a.Client == id {
			seqs = append(seqs, a.Seq)
		}
		return a.Client == id
	})
	for _, seq := range seqs {
		s.Answers.Drop(&s.Log, state.AnswerKey{Client: id, Seq: seq})
	}
	s.Clients.Put(&s.Log, &next)
	s.jobs.FreeLocksOf(id)
}
