package work

import (
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// ordered takes an order in, answers it from the record, or refuses it.
func (s *State) ordered(o Order) {
	n := s.nodes[o.Node]
	switch {
	case n == nil || !n.assigned:
		s.emit(Refuse{o, fault.New(fault.NotFound, "take order", "node %s is not assigned to this agent", o.Node)})
		return
	case o.Token < n.floor(o):
		s.emit(Refuse{o, fault.New(fault.StaleToken, "take order", "token %d is older than %d, seen for node %s", o.Token, n.floor(o), o.Node)})
		return
	}
	n.token = max(n.token, o.Token)
	switch {
	case n.phase != idle && n.order.Ref == o.Ref:
		s.again(n, o)
	case n.phase == idle && n.rec.answers(o):
		n.rec.Confirmed = false
		s.emit(Report{*n.rec.Outcome})
	case n.phase == idle:
		s.accept(n, o)
	default:
		s.replace(n, o)
	}
}

// floor is the token below which an order is stale. The token of a ramdisk step is no lock: while the step runs, an operator
// or this agent itself may hold the node's lock under a higher one. Such an order is stale below the orders before it, or if
// it is of an earlier generation.
func (n *slot) floor(o Order) uint64 {
	if !isRamdisk(o) {
		return n.token
	}
	floor := n.token >> generationShift << generationShift
	if n.rec != nil {
		floor = max(floor, n.rec.RanUnder)
	}
	if n.phase != idle {
		floor = max(floor, n.order.Token)
	}
	return floor
}

// again is an order for the attempt in work: at most its token is news.
func (s *State) again(n *slot, o Order) {
	n.current = true
	switch {
	case n.phase == stopping: // dropped with its session, and ours again: after it has stopped
		o.Resumed = true
		n.next = &o
	case o.Token > n.order.Token:
		n.order.Token = o.Token
		switch n.phase {
		case running:
			s.emit(Retoken{o.Ref, o.Token})
		case delivered:
			s.save(o.Node, false)
			s.emit(Deliver{*n.order})
		default:
		}
	}
}

// replace puts a newer attempt in the place of the one in work.
func (s *State) replace(n *slot, o Order) {
	const reason = "a newer attempt has taken its place"
	switch n.phase {
	case queued:
		s.unqueue(o.Node)
		s.accept(n, o)
	case delivered:
		s.emit(Stop{Order: *n.order, Reason: reason, Quiet: true})
		s.accept(n, o)
	case running:
		n.phase = stopping
		n.next, n.current = &o, true
		s.emit(Stop{Order: *n.order, Reason: reason, Quiet: true})
	default: // stopping
		n.next, n.current = &o, true
	}
}

// accept makes the order the node's own. The node has no other.
func (s *State) accept(n *slot, o Order) {
	if o.Executor != step.BMC && o.Executor != step.Agent && o.Executor != step.Ramdisk {
		s.emit(Report{Failed(o, unsupported(o))})
		return
	}
	rec := Record{Ref: o.Ref, RanUnder: o.Token}
	if n.rec.is(o) { // begun before, and no outcome known
		o.Resumed = true
		rec.Intents = n.rec.Intents
	}
	n.rec, n.order, n.current, n.next = &rec, &o, true, nil
	if isRamdisk(o) {
		n.phase = delivered
		s.save(o.Node, false) // the ramdisk itself runs an attempt at most once, and keeps the highest token
		s.emit(Deliver{o})
		return
	}
	n.phase = queued
	s.ready = append(s.ready, o.Node)
}

func (s *State) cancelled(e Cancelled) {
	n := s.nodes[e.Ref.Node]
	if n == nil || n.phase == idle || n.order.Ref != e.Ref {
		return
	}
	switch n.phase {
	case queued:
		s.unqueue(e.Ref.Node)
		s.ended(n, Failed(*n.order, fault.New(fault.Aborted, n.order.Full(), "cancelled: %s", e.Reason)))
	case running, delivered:
		s.emit(Stop{Order: *n.order, Reason: e.Reason})
	default:
	}
}

// intending notes that an effect is about to begin: on disk first.
func (s *State) intending(ref Ref) {
	n := s.nodes[ref.Node]
	if n == nil || n.phase != running || n.order.Ref != ref {
		return
	}
	n.rec.Intents++
	n.rec.RanUnder = n.order.Token
	s.save(ref.Node, true)
}

// reported takes in what a ramdisk says. Of the order in work it is the end, if the order is its own. Of any other it
// is a fact for the coordinators and changes nothing here: another agent of the group may have delivered that order,
// and the ramdisk says it again until it is committed.
func (s *State) reported(o Outcome) {
	n := s.nodes[o.Node]
	switch {
	case n == nil || n.phase == idle || n.order.Ref != o.Ref:
		if n != nil && n.phase == idle && n.rec.reported(o) {
			o = *n.rec.Outcome // as it was recorded first
		}
		s.emit(Report{o})
	case !isRamdisk(*n.order) || n.order.BootID != o.BootID:
		s.emit(Reject{o, fault.New(fault.Denied, "take report", "a ramdisk of boot attempt %q reports a step of the %s", o.BootID, n.order.Executor)})
	default:
		s.finished(o)
	}
}

// finished takes the end of an attempt in.
func (s *State) finished(o Outcome) {
	_, known := s.nodes[o.Node]
	n := s.node(o.Node)
	switch {
	case n == nil:
		s.emit(Report{o})
		return
	case !known:
		n.gone = true // it was forgotten meanwhile, and is again when this is confirmed
		s.ended(n, o)
		return
	case n.phase != idle && n.order.Ref == o.Ref:
		if n.phase == running || n.phase == stopping {
			s.running--
		}
		if n.phase == stopping && !o.OK {
			n.phase = idle
			break // cut short: nothing is known
		}
		s.ended(n, o)
	case n.rec != nil && n.rec.Ref == o.Ref && n.rec.Outcome != nil:
		s.emit(Report{*n.rec.Outcome}) // whoever says it again has not heard that it is confirmed
		return
	case n.phase == idle:
		s.ended(n, o)
		return
	default: // of an attempt before the one in work
		s.emit(Report{o})
		return
	}
	if next := n.next; next != nil {
		n.next = nil
		s.ordered(*next)
	}
	s.release(o.Node)
}

// ended records an outcome and reports it, in this order.
func (s *State) ended(n *slot, o Outcome) {
	n.phase = idle
	if n.rec == nil || n.rec.Ref != o.Ref {
		n.rec = &Record{Ref: o.Ref, RanUnder: o.Token}
	}
	n.rec.Outcome, n.rec.Confirmed = &o, false
	s.save(o.Node, true)
	s.emit(Report{o})
}

// confirmed lets the bulk of an outcome go. The rest stays until the node's next order, to answer a repeat.
func (s *State) confirmed(ref Ref) {
	n := s.nodes[ref.Node]
	if n == nil || n.rec == nil || n.rec.Ref != ref || n.rec.Outcome == nil || n.rec.Confirmed {
		return
	}
	o := *n.rec.Outcome
	o.Inventory = nil
	n.rec.Outcome, n.rec.Confirmed = &o, true
	s.save(ref.Node, false)
	s.release(ref.Node)
}
