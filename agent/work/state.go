package work

import (
	"slices"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// MaxNodes bounds the nodes that one agent looks after.
const MaxNodes = 200_000

// State is all that the agent has been told and has not yet answered. It is not safe for concurrent use.
type State struct {
	lease   lease
	workers int // bmc and agent steps that may run at once
	running int
	nodes   map[string]*slot
	ready   []string // nodes whose order waits for a worker or the lease, oldest first
	out     []Effect
}

type phase uint8

const (
	idle phase = iota
	queued
	running
	delivered
	stopping // told to stop; its outcome counts only if it succeeded
)

// slot is what is known of one node.
type slot struct {
	assigned bool
	named    bool // since Welcomed
	gone     bool // taken away, or not named: forgotten once nothing of it is to be told
	epoch    uint64
	token    uint64  // highest seen
	rec      *Record // of the last attempt, nil: there was none; its Token is not kept up to date, see save
	order    *Order  // valid unless idle
	next     *Order  // waits until the one in work has stopped
	phase    phase
	current  bool // the order was named since Welcomed
}

// New makes a State that runs at most workers bmc and agent steps at once.
func New(workers int) *State {
	return &State{workers: max(workers, 1), nodes: make(map[string]*slot)}
}

// Step takes one event in and returns what to do. The slice is valid until the next call.
func (s *State) Step(now time.Duration, ev Event) []Effect {
	s.out = s.out[:0]
	switch e := ev.(type) {
	case Restored:
		s.restore(e.Records)
	case Greeted:
		s.lease.greeted = now
		s.lease.sent = s.lease.sent[:0]
	case Welcomed:
		s.welcomed(e)
	case Renewing:
		s.lease.renewing(e.Seq, now)
	case Renewed:
		s.lease.renewed(e.Seq)
		s.emit(Lease{s.lease.until})
	case Ended:
		s.dropAll(e.Reason)
		s.lease.close()
		s.emit(Lease{})
	case Lost:
		s.lease.sent = s.lease.sent[:0]
	case Assigned:
		s.assigned(e)
	case Recalled:
		if n := s.node(e.Node); n != nil && !n.assigned {
			n.assigned, n.gone, n.epoch = true, false, e.Epoch
		}
	case Unassigned:
		s.unassigned(e)
	case Synced:
		s.synced()
	case Ordered:
		s.ordered(e.Order)
	case Cancelled:
		s.cancelled(e)
	case Confirmed:
		s.confirmed(e.Ref)
	case Finished:
		s.finished(e.Outcome)
	case Reported:
		s.reported(e.Outcome)
	case Intending:
		s.intending(e.Ref)
	case Granted:
		s.granted(e)
	case Resized:
		s.workers = max(e.Workers, 1)
	case Ticked:
	}
	s.pump(now)
	return s.out
}

// Session is the session held, "" when none.
func (s *State) Session() string { return s.lease.session }

// LeaseUntil is the boottime before which effects on BMCs may start.
func (s *State) LeaseUntil() time.Duration { return s.lease.until }

// May tells whether the attempt may begin an effect on a BMC now: nil, or why not. Expired means that the lease
// has lapsed and may be renewed; StaleToken that a newer token was seen and may still be given to this attempt;
// Aborted that the attempt is over.
func (s *State) May(now time.Duration, ref Ref) error {
	n := s.nodes[ref.Node]
	switch {
	case n == nil || n.phase != running || n.order.Ref != ref:
		return fault.New(fault.Aborted, "begin effect", "the attempt is over")
	case n.order.Token < n.token:
		return fault.New(fault.StaleToken, "begin effect", "token %d is older than %d", n.order.Token, n.token)
	case now >= s.lease.until:
		return fault.New(fault.Expired, "begin effect", "the session has not been renewed in time")
	}
	return nil
}

// MayHold tells whether a holder of the node's lock, who is not running an order, may begin an effect now: nil, or
// Expired or StaleToken as in May.
func (s *State) MayHold(now time.Duration, node string, token uint64) error {
	switch {
	case token < s.Token(node):
		return fault.New(fault.StaleToken, "begin effect", "token %d is older than %d", token, s.Token(node))
	case now >= s.lease.until:
		return fault.New(fault.Expired, "begin effect", "the session has not been renewed in time")
	}
	return nil
}

// Free is the number of workers that have nothing to do.
func (s *State) Free() int { return max(s.workers-s.running-len(s.ready), 0) }

// Unconfirmed lists the outcomes that the coordinators have not confirmed, ordered by node.
func (s *State) Unconfirmed() []Outcome {
	var all []Outcome
	for _, id := range s.ids() {
		if r := s.nodes[id].rec; r != nil && r.Outcome != nil && !r.Confirmed {
			all = append(all, *r.Outcome)
		}
	}
	return all
}

// Open lists the orders in work, ordered by node.
func (s *State) Open() []Order {
	var all []Order
	for _, id := range s.ids() {
		if n := s.nodes[id]; n.phase == queued || n.phase == running || n.phase == delivered {
			all = append(all, *n.order)
		}
	}
	return all
}

// Order is the node's order in work, if there is one.
func (s *State) Order(node string) (Order, bool) {
	if n := s.nodes[node]; n != nil && n.phase != idle {
		return *n.order, true
	}
	return Order{}, false
}

// Rests tells whether a node is assigned here and nothing is ordered for it.
func (s *State) Rests(node string) bool {
	n := s.nodes[node]
	return n != nil && n.assigned && n.phase == idle
}

// Token is the highest token seen for the node, 0 when none was.
func (s *State) Token(node string) uint64 {
	if n := s.nodes[node]; n != nil {
		return n.token
	}
	return 0
}

func (s *State) ids() []string {
	ids := make([]string, 0, len(s.nodes))
	for id := range s.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (s *State) emit(e Effect) { s.out = append(s.out, e) }

// node is the node's slot, made if there is room.
func (s *State) node(id string) *slot {
	n := s.nodes[id]
	switch {
	case n != nil || id == "":
	case len(s.nodes) >= MaxNodes:
		s.emit(Overflow{id})
	default:
		n = &slot{}
		s.nodes[id] = n
	}
	return n
}

// release forgets a node that is gone, once it rests and its outcome is confirmed. Its token comes again with its next
// assignment, and what of an attempt may have been done is known to the coordinators, who mark it as resumed.
func (s *State) release(id string) {
	n := s.nodes[id]
	if n == nil || !n.gone || n.phase != idle || n.rec != nil && n.rec.Outcome != nil && !n.rec.Confirmed {
		return
	}
	delete(s.nodes, id)
	s.emit(Erase{id})
}

func (s *State) save(id string, wait bool) {
	n := s.nodes[id]
	var r Record
	if n.rec != nil {
		r = *n.rec
	}
	r.Node, r.Token = id, n.token
	s.emit(Save{Record: r, Wait: wait})
}

func (s *State) restore(records []Record) {
	for _, r := range records {
		if n := s.node(r.Node); n != nil {
			n.token, n.rec = max(n.token, r.Token), &r
		}
	}
}

func (s *State) welcomed(e Welcomed) {
	if !e.Resumed {
		s.dropAll("the session is another")
		s.lease.close()
	}
	s.lease.open(e.Session, e.TTL)
	for _, n := range s.nodes {
		n.named, n.current = false, false
	}
	s.emit(Lease{s.lease.until})
}

// dropAll ends all work without a word about it: the attempts are open still, and somebody else's, or ours again
// under a new token. What a ramdisk runs goes on: the ramdisk is its own fence.
func (s *State) dropAll(reason string) {
	for _, id := range s.ids() {
		s.drop(id, reason)
	}
	s.ready = s.ready[:0]
}

func (s *State) drop(id, reason string) {
	n := s.nodes[id]
	n.next = nil
	switch n.phase {
	case queued:
		s.unqueue(id)
		n.phase = idle
	case running:
		n.phase = stopping
		s.emit(Stop{Order: *n.order, Reason: reason, Quiet: true})
	case delivered:
		n.phase = idle
	case idle, stopping:
	}
}

func (s *State) unqueue(id string) {
	if i := slices.Index(s.ready, id); i >= 0 {
		s.ready = slices.Delete(s.ready, i, i+1)
	}
}

func (s *State) assigned(e Assigned) {
	n := s.node(e.Node)
	if n == nil {
		return
	}
	n.assigned, n.named, n.gone, n.epoch = true, true, false, e.Epoch
	if e.Token > n.token {
		n.token = e.Token
		s.save(e.Node, false)
	}
}

func (s *State) granted(e Granted) {
	if n := s.node(e.Node); n != nil && e.Token > n.token {
		n.token = e.Token
		s.save(e.Node, true)
	}
}

func (s *State) unassigned(e Unassigned) {
	n := s.nodes[e.Node]
	if n != nil && n.assigned && n.epoch > e.Epoch {
		return // an older assignment's end
	}
	if n != nil {
		s.drop(e.Node, "the node was given to another agent")
		n.assigned, n.gone = false, true
	}
	s.emit(Forget{Node: e.Node, Epoch: e.Epoch, Ack: true})
	s.release(e.Node)
}

func (s *State) synced() {
	for _, id := range s.ids() {
		n := s.nodes[id]
		if n.assigned && !n.named {
			s.drop(id, "the node is another agent's")
			n.assigned = false
			s.emit(Forget{Node: id, Epoch: n.epoch})
		}
		if n.phase != idle && !n.current {
			s.drop(id, "the attempt is closed")
		}
		n.gone = !n.assigned // also what is known from the journal only
		s.release(id)
	}
}

// pump starts what may start.
func (s *State) pump(now time.Duration) {
	for len(s.ready) > 0 && s.running < s.workers && now < s.lease.until {
		n := s.nodes[s.ready[0]]
		s.ready = s.ready[1:]
		n.phase = running
		s.running++
		s.emit(Start{*n.order})
	}
	if len(s.ready) == 0 {
		s.ready = nil
	}
}

func unsupported(o Order) error {
	return fault.New(fault.Unsupported, "take order", "an agent does not run %s steps: %s", o.Executor, o.Full())
}

func isRamdisk(o Order) bool { return o.Executor == step.Ramdisk }
