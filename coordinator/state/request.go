package state

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// repeated answers a request that was done before. Only successes are stored: a refused command changed
// nothing, so doing it again is doing it once; a command that met a held lock is proposed again by its queue.
func (s *State) repeated(r command.RequestID) (command.Result, bool) {
	if r.IsZero() {
		return command.Result{}, false
	}
	const op = "check request id"
	if len(r.Client) > 64 || r.Seq == 0 {
		return refuse(fault.New(fault.Invalid, op, "a request id is a client session of at most 64 bytes and a sequence above 0")), true
	}
	c := s.client(r.Client)
	if c == nil {
		if s.clients.Len() >= MaxClients && s.endedClients.Len() == 0 {
			return refuse(fault.New(fault.Busy, op, "%d client sessions are in use", MaxClients).
				WithHelp("a session that is not used ends after %s: try again later", ClientIdle)), true
		}
		return command.Result{}, false
	}
	if c.Actor != s.header.Actor {
		return refuse(fault.New(fault.Denied, op, "the client session belongs to somebody else").WithHelp("draw a new client session id")), true
	}
	a := s.answers.Find(answerKey{r.Client, r.Seq})
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

// remember stores the answer to a request, and drops the oldest beyond MaxAnswers.
func (s *State) remember(r command.RequestID, res command.Result) {
	if r.IsZero() {
		return
	}
	res.Index = s.root.index
	c := Client{ID: r.Client, Actor: s.header.Actor}
	if old := s.client(r.Client); old != nil {
		c = *old
	} else {
		s.makeRoomForClient()
	}
	c.Ended, c.UsedAt, c.High, c.Count = false, s.root.elapsed, max(c.High, r.Seq), c.Count+1
	a := &Answer{Client: r.Client, Seq: r.Seq, Digest: r.Digest, Result: res}
	if answerSize(&res) > MaxAnswerSize {
		a.Gone, a.Result = true, command.Result{Index: res.Index}
	}
	s.answers.Put(&s.log, a)
	if c.Count > MaxAnswers {
		s.answers.Ascend(answerKey{client: c.ID}, func(oldest *Answer) bool {
			c.Floor = max(c.Floor, oldest.Seq)
			c.Count--
			s.answers.Drop(&s.log, answerKey{c.ID, oldest.Seq})
			return false
		})
	}
	s.clients.Put(&s.log, &c)
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
func (s *State) makeRoomForClient() {
	if s.clients.Len() < MaxClients {
		return
	}
	if oldest, some := s.endedClients.Min(); some {
		s.clients.Drop(&s.log, oldest.id)
	}
}

// endClient drops the answers of a client session and frees the locks that it holds. What it asked for stays
// unrepeatable: High is kept.
func (s *State) endClient(id string) {
	c := s.client(id)
	if c == nil || c.Ended {
		return
	}
	next := *c
	next.Ended, next.Floor, next.Count = true, c.High, 0
	var seqs []uint64
	s.answers.Ascend(answerKey{client: id}, func(a *Answer) bool {
		if a.Client == id {
			seqs = append(seqs, a.Seq)
		}
		return a.Client == id
	})
	for _, seq := range seqs {
		s.answers.Drop(&s.log, answerKey{id, seq})
	}
	s.clients.Put(&s.log, &next)
	s.freeLocksOf(id)
}

// freeLocksOf frees the locks that a session holds and no flow stands behind.
func (s *State) freeLocksOf(session string) {
	var ids []node.ID
	s.held.Scan(func(id node.ID) bool {
		if n := s.node(id); n.Lock.Session == session && n.Lock.Flow == 0 {
			ids = append(ids, id)
		}
		return true
	})
	for _, id := range ids {
		j := s.jobOf(id)
		j.release()
		j.advance()
		j.save()
	}
}
