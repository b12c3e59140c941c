package work

// Ref names an order, as OrderRef does on the wire.
type Ref struct {
	Node    string
	Flow    uint64
	Step    uint32
	Attempt uint32
	Token   uint64
}

// same tells whether two refs name the same step of the same flow.
func (r Ref) same(o Ref) bool { return r.Flow == o.Flow && r.Step == o.Step }

// Order is a step to run.
type Order struct {
	Ref     Ref
	Step    string // write_image, ...
	Args    map[string]string
	Secret  []byte // JSON object of strings
	Resumed bool   // it may have run in part before: look before writing
	Image   string // path of the image below an agent's URL
}

// End says what follows once the outcome is confirmed.
type End uint8

// What follows a step.
const (
	GoOn     End = iota
	PowerOff     // the machine is switched off
	Reboot
)

func (e End) String() string {
	switch e {
	case PowerOff:
		return "power off"
	case Reboot:
		return "reboot"
	default:
		return "go on"
	}
}

// Outcome is how a step ended.
type Outcome struct {
	Ref       Ref
	OK        bool
	Error     string
	Kind      string // fault.Kind as text
	Retryable bool
	Facts     map[string]string
	Inventory []byte
	Then      End
}

// Event is what happened: Ordered, Cancelled, Finished, Confirmed or Halted.
type Event interface{ event() }

// Ordered: an agent ordered a step.
type Ordered struct{ Order Order }

// Cancelled: an agent asked to stop a step.
type Cancelled struct{ Ref Ref }

// Finished: the step that was started has ended; Ref is ignored.
type Finished struct{ Outcome Outcome }

// Confirmed: an agent answered the report of an outcome.
type Confirmed struct{ Ref Ref }

// Halted: the boot attempt is closed.
type Halted struct{}

func (Ordered) event()   {}
func (Cancelled) event() {}
func (Finished) event()  {}
func (Confirmed) event() {}
func (Halted) event()    {}

// Effect is what to do: Start, Stop, Report, Ignore or Leave.
type Effect interface{ effect() }

// Start runs a step; exactly one Finished answers it.
type Start struct{ Order Order }

// Stop asks the running step to end soon.
type Stop struct{ Reason string }

// Report tells an agent, again and again until one answers. A later Report of the same step replaces it.
type Report struct{ Outcome Outcome }

// Ignore is for the log: the order or cancellation is older than one seen, and closes nothing.
type Ignore struct {
	Ref    Ref
	Reason string
}

// Leave ends the agent's work on this machine.
type Leave struct{ How End }

func (Start) effect()  {}
func (Stop) effect()   {}
func (Report) effect() {}
func (Ignore) effect() {}
func (Leave) effect()  {}

// State is the agent's memory of one boot. The zero State is ready. One goroutine at a time.
type State struct {
	token    uint64   // highest seen
	running  *Order   // under its newest ref
	stopping bool     // running was asked to end
	next     *Order   // starts when running has ended
	last     *Outcome // of the newest step that ended
	answered bool     // last was confirmed
	halted   bool
}

// Token is the highest token seen.
func (s *State) Token() uint64 { return s.token }

// Running is the order in work.
func (s *State) Running() (Order, bool) {
	if s.running == nil {
		return Order{}, false
	}
	return *s.running, true
}

// Have is the order that runs or ran last: what NextCommand tells the agent.
func (s *State) Have() (Ref, bool) {
	switch {
	case s.running != nil:
		return s.running.Ref, true
	case s.last != nil:
		return s.last.Ref, true
	default:
		return Ref{}, false
	}
}

// Step takes one event.
func (s *State) Step(e Event) []Effect {
	switch e := e.(type) {
	case Ordered:
		return s.ordered(e.Order)
	case Cancelled:
		return s.cancelled(e.Ref)
	case Finished:
		return s.finished(e.Outcome)
	case Confirmed:
		return s.confirmed(e.Ref)
	case Halted:
		return s.halt()
	default:
		panic("work: unknown event")
	}
}

func (s *State) ordered(o Order) []Effect {
	if s.halted {
		return []Effect{Ignore{o.Ref, "the boot attempt is closed"}}
	}
	if o.Ref.Token < s.token {
		// Not reported as a failure: the attempt may be open under a newer token.
		return []Effect{Ignore{o.Ref, "its token is older than one seen"}}
	}
	s.token = o.Ref.Token
	switch {
	case s.running != nil && s.running.Ref.same(o.Ref) && !s.stopping:
		if o.Ref.Attempt < s.running.Ref.Attempt {
			return []Effect{Ignore{o.Ref, "a later attempt is running"}}
		}
		s.running.Ref = o.Ref
		return nil
	case s.running != nil:
		s.next = &o
		if s.stopping {
			return nil
		}
		s.stopping = true
		return []Effect{Stop{"another step was ordered"}}
	case s.last != nil && s.last.Ref.same(o.Ref) && (s.last.OK || o.Ref.Attempt <= s.last.Ref.Attempt):
		if o.Ref.Attempt >= s.last.Ref.Attempt {
			s.last.Ref = o.Ref
		}
		s.answered = false
		return []Effect{Report{*s.last}}
	default:
		s.running = &o
		return []Effect{Start{o}}
	}
}

func (s *State) cancelled(r Ref) []Effect {
	if r.Token < s.token {
		return []Effect{Ignore{r, "its token is older than one seen"}}
	}
	s.token = r.Token
	if s.next != nil && s.next.Ref.same(r) {
		s.next = nil
	}
	if s.running == nil || !s.running.Ref.same(r) || s.stopping {
		return nil
	}
	s.stopping = true
	return []Effect{Stop{"cancelled"}}
}

func (s *State) finished(o Outcome) []Effect {
	if s.running == nil {
		return nil
	}
	o.Ref = s.running.Ref
	s.running, s.stopping = nil, false
	s.last, s.answered = &o, false
	if s.halted {
		return []Effect{Leave{PowerOff}}
	}
	if s.next == nil {
		return []Effect{Report{o}}
	}
	next := s.next
	s.next = nil
	if next.Ref.same(o.Ref) { // ordered again after it was cancelled: its outcome would be mistaken for the new attempt's
		s.running = next
		return []Effect{Start{*next}}
	}
	s.running = next
	return []Effect{Report{o}, Start{*next}}
}

func (s *State) confirmed(r Ref) []Effect {
	if s.last == nil || s.last.Ref != r || s.answered {
		return nil
	}
	s.answered = true
	if s.running == nil && s.last.OK && s.last.Then != GoOn {
		return []Effect{Leave{s.last.Then}}
	}
	return nil
}

func (s *State) halt() []Effect {
	if s.halted {
		return nil
	}
	s.halted, s.next = true, nil
	if s.running == nil {
		return []Effect{Leave{PowerOff}}
	}
	if s.stopping {
		return nil
	}
	s.stopping = true
	return []Effect{Stop{"the boot attempt is closed"}}
}
