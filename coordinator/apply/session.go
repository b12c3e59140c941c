package apply

import (
	"slices"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// tick moves elapsed, renews sessions, then ends what has expired. A wrong clock of the leader can neither
// expire a session nor keep one alive for more than state.MaxTick.
func (s *Applier) tick(c command.Tick) command.Result {
	d := min(max(c.D, 0), state.MaxTick)
	if c.FirstOfTerm {
		d = 0
	}
	s.Root.Elapsed += d
	if c.FirstOfTerm {
		var all []string
		s.Sessions.Scan(func(se *state.Session) bool { all = append(all, se.ID); return true })
		c.Renew = all
	}
	for _, id := range c.Renew {
		if old := s.Session(id); old != nil {
			s.renew(old)
		}
	}
	for _, id := range c.ClientSeen {
		if old := s.Client(id); old != nil && !old.Ended && s.Root.Elapsed-old.UsedAt >= time.Second {
			next := *old
			next.UsedAt = s.Root.Elapsed
			s.Clients.Put(&s.Log, &next)
		}
	}
	s.expire()
	s.forgetCertificates()
	s.PackSome()
	return ok()
}

// renew gives a session its time from now. That is the time that its holder was told when the session was opened and counts
// its own lease with, whatever the settings say since; and a deadline that was granted is not taken back.
func (s *Applier) renew(old *state.Session) {
	ttl := old.TTL
	if ttl == 0 { // opened before sessions had it
		ttl = s.Root.Settings.SessionTTL
	}
	if until := s.Root.Elapsed + ttl; until > old.Deadline {
		next := *old
		next.Deadline = until
		s.Sessions.Put(&s.Log, &next)
	}
}

// expire ends everything but attempts whose deadline has come. Each end moves or drops the deadline.
func (s *Applier) expire() {
	for _, d := range s.Expired() {
		switch d.Kind {
		case state.SessionDeadline:
			s.endSession(d.ID, "expired")
		case state.ClientDeadline:
			if c := s.Client(d.ID); c.Ended {
				s.Clients.Drop(&s.Log, d.ID)
			} else {
				s.endClient(d.ID)
			}
		case state.JoinTokenDeadline:
			t := s.JoinTokens.Find(d.ID)
			s.JoinTokens.Drop(&s.Log, d.ID)
			if t.UsedBy == ([32]byte{}) {
				s.Emit(state.EventJoinToken, nil, "token", t.ID, "state", "expired", "role", t.Role, "name", t.Name)
			}
		}
	}
}

// openSession opens, resumes or replaces an agent's session.
func (s *Applier) openSession(c command.OpenSession) command.Result {
	if err := s.checkHello(&c); err != nil {
		return refuse(err)
	}
	if c.Key != ([32]byte{}) { // a log from before the roster has none
		if err := state.Admit(s.Certificates.Find(c.Key), state.RoleAgent, c.Agent); err != nil {
			return refuse(err)
		}
	}
	a := state.Agent{Name: c.Agent, RegisteredAt: s.Header.At}
	old := s.Agent(c.Agent)
	if old != nil {
		a = *old
		if a.Removed {
			return refuse(fault.New(fault.Denied, "open session", "agent %s was removed", c.Agent).WithHelp("let it join again with a token"))
		}
	}
	if a.Session != "" {
		se := s.Session(a.Session)
		switch {
		case se.Journal != c.Journal:
			return s.refuseSecond(&a)
		case c.Incarnation < se.Incarnation:
			return refuse(fault.New(fault.StaleToken, "open session", "a later incarnation (%d) of agent %s is live, this is %d", se.Incarnation, a.Name, c.Incarnation).
				WithHelp("stop this process: another one uses its journal"))
		case c.Incarnation == se.Incarnation:
			return s.resumeSession(se)
		}
	}
	if s.Session(c.Session) != nil || c.Session == "" {
		return refuse(fault.New(fault.Invalid, "open session", "the session id %q is not fresh", c.Session))
	}
	return s.startSession(&a, old, c)
}

func (s *Applier) checkHello(c *command.OpenSession) error {
	const op = "open session"
	switch {
	case c.Agent == "" || len(c.Agent) > state.MaxNameLen || len(c.Group) > state.MaxNameLen || len(c.Drivers) > 64:
		return fault.New(fault.Invalid, op, "an agent has a name of at most %d bytes and at most 64 hardware types", state.MaxNameLen)
	case c.Journal == "":
		return fault.New(fault.Invalid, op, "agent %s names no journal", c.Agent)
	case c.Level > s.Root.Cluster.Level:
		return fault.New(fault.Version, op, "agent %s speaks level %d, the cluster is at level %d", c.Agent, c.Level, s.Root.Cluster.Level).
			WithHelp("upgrade the coordinators first, or install an older agent")
	case s.Agent(c.Agent) == nil && s.Agents.Len() >= state.MaxAgents:
		return fault.New(fault.Busy, op, "%d agents are registered", state.MaxAgents).WithHelp("remove those that are gone: farrier agent remove")
	}
	return nil
}

// alarmed is a refusal that operators should see.
type alarmed struct{ err *fault.Error }

func (a alarmed) Error() string { return a.err.Error() }
func (a alarmed) Unwrap() error { return a.err }

func (s *Applier) refuseSecond(a *state.Agent) command.Result {
	return refuse(alarmed{fault.New(fault.Exists, "open session", "agent %s is live with another journal", a.Name).
		WithHelp("two machines use one agent name, or a journal was lost: give this one another name, or wait until the other's session has ended")})
}

func (s *Applier) resumeSession(se *state.Session) command.Result {
	s.renew(se)
	s.Emit(state.EventAgentSession, nil, "agent", se.Agent, "state", "resumed", "session", se.ID, "incarnation", state.Num(se.Incarnation))
	return command.Result{Session: se.ID, Flags: command.FlagResumed}
}

// startSession opens a session. One of an earlier incarnation on the same journal ends at once, and its nodes
// stay: their open attempts go on under new tokens.
func (s *Applier) startSession(a, old *state.Agent, c command.OpenSession) command.Result {
	replaced := a.Session
	joined := old == nil || old.Session == ""
	drivers := slices.Compact(slices.Sorted(slices.Values(c.Drivers)))
	changed := joined || a.Group != c.Group || a.Weight != c.Weight || !slices.Equal(a.Drivers, drivers)
	before := *a
	a.Group, a.Drivers, a.Weight, a.Version, a.Level = c.Group, drivers, c.Weight, c.Version, c.Level
	a.RamdiskURL, a.HTTPURL, a.RamdiskPin = c.RamdiskURL, c.HTTPURL, c.RamdiskPin
	a.Session, a.Journal, a.Incarnation, a.Alarm = c.Session, c.Journal, c.Incarnation, ""
	s.Sessions.Put(&s.Log, &state.Session{
		ID: c.Session, Agent: a.Name, Journal: c.Journal, Incarnation: c.Incarnation,
		Deadline: s.Root.Elapsed + s.Root.Settings.SessionTTL, TTL: s.Root.Settings.SessionTTL,
	})
	s.Agents.Put(&s.Log, a)
	what := "opened"
	if replaced != "" {
		what = "replaced"
		s.Sessions.Drop(&s.Log, replaced)
	}
	s.Emit(state.EventAgentSession, nil, "agent", a.Name, "state", what, "session", a.Session, "incarnation", state.Num(a.Incarnation))
	if changed {
		s.bumpRings(&before, a)
	}
	if replaced != "" {
		s.letGo(a.Name)
		s.jobs.FreeLocksOf(replaced)
		s.settleNodes(a, "session replaced")
	}
	s.welcome(a)
	return command.Result{Session: c.Session}
}

// settleNodes goes through an agent's nodes after its session changed or its registration did: those that it can
// no longer serve move, open attempts of the others are granted to the new session.
func (s *Applier) settleNodes(a *state.Agent, reason string) {
	for _, id := range s.NodesOf(a.Name) {
		if n := s.Node(id); n.Group != a.Group || !a.HasDriver(n.Driver) {
			s.jobs.Move(id, s.place(n), reason)
		} else {
			s.jobs.Regrant(id, reason)
		}
	}
}

func (s *Applier) closeSession(c command.CloseSession) command.Result {
	if s.Session(c.Session) == nil {
		return refuse(fault.New(fault.NotFound, "close session", "there is no session %s", c.Session))
	}
	s.endSession(c.Session, c.Reason)
	return ok()
}

// endSession ends an agent's session: its handovers count as acknowledged, its nodes are placed anew in the same
// entry, and the work behind them goes on under new tokens.
func (s *Applier) endSession(id, reason string) {
	se := s.Session(id)
	if se == nil {
		return
	}
	s.Sessions.Drop(&s.Log, id)
	a := *s.Agent(se.Agent)
	a.Session, a.EndedAt = "", s.Root.Elapsed
	s.Agents.Put(&s.Log, &a)
	s.Emit(state.EventAgentSession, nil, "agent", a.Name, "state", "ended", "session", id, "incarnation", state.Num(se.Incarnation), "reason", reason)
	s.bumpRings(&a, &a)
	s.letGo(a.Name)
	s.jobs.FreeLocksOf(id)
	for _, id := range s.NodesOf(a.Name) {
		s.jobs.Move(id, s.place(s.Node(id)), "session "+reason)
	}
}

// letGo ends the handovers that wait for an agent whose process is gone: what it served went with it.
func (s *Applier) letGo(agent string) {
	for _, id := range s.HandoversOf(agent) {
		s.jobs.LetGo(id, agent, true)
	}
}
