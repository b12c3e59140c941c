package batch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Bounds of what can be on its way at once, so that raft's heartbeats are never starved.
const (
	maxAhead   = 4    // entries on their way; one that is not full goes alone
	maxWaiting = 8192 // proposals that wait for an entry
)

const op = "propose"

// Log appends entries; *raft.Raft is one.
type Log interface {
	Apply(data []byte, timeout time.Duration) raft.ApplyFuture
}

// Queue holds the proposals that wait for an entry. It is safe for concurrent use.
type Queue struct {
	cluster string
	latch   *fatal.Latch
	ended   <-chan struct{}
	waiting chan *proposal
	landed  chan struct{} // an entry is not on its way any more
	ahead   chan onItsWay
}

// New makes an empty queue of the cluster. Who waits is let go when the latch fires, and when ended is closed.
func New(cluster string, l *fatal.Latch, ended <-chan struct{}) *Queue {
	return &Queue{
		cluster: cluster, latch: l, ended: ended,
		waiting: make(chan *proposal, maxWaiting), landed: make(chan struct{}, maxAhead), ahead: make(chan onItsWay, maxAhead),
	}
}

// Waiting is how many proposals wait for an entry.
func (q *Queue) Waiting() int { return len(q.waiting) }

// ErrEnded is of what waits when the member has stopped.
var ErrEnded = errors.New("this coordinator has stopped")

// proposal is the encoded commands of one Submit, which share an entry, or the content of an entry of another kind.
type proposal struct {
	kind entry.Kind
	data []byte
	n    int // results
	done chan answer
	fate atomic.Int32
}

// Fates of a proposal. It leaves fateWaiting once.
const (
	fateWaiting int32 = iota
	fateTaken         // it is in an entry
	fateLeft          // the caller left before
)

type answer struct {
	results []command.Result
	err     error
}

// onItsWay is an entry that was appended.
type onItsWay struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

// Submit queues the content of an entry, or of a part of one, and waits for its n results. The content belongs to the log from then
// on. Errors: raft.ErrNotLeader and raft.ErrLeadershipTransferInProgress, fault.Timeout and fault.Busy: nothing was appended;
// fault.UnknownOutcome: it may have been.
func (q *Queue) Submit(ctx context.Context, k entry.Kind, data []byte, n int) ([]command.Result, error) {
	p := &proposal{kind: k, data: data, n: n, done: make(chan answer, 1)}
	select {
	case q.waiting <- p:
	case <-ctx.Done():
		return nil, fault.New(fault.Timeout, op, "%w", ctx.Err())
	default:
		return nil, fault.New(fault.Busy, op, "%d proposals wait already", maxWaiting)
	}
	var gone error
	select {
	case a := <-p.done:
		return a.results, a.err
	case <-ctx.Done():
		gone = ctx.Err()
	case <-q.latch.Fired():
		gone = q.latch.Failed()
	case <-q.ended:
		gone = ErrEnded
	}
	if p.fate.CompareAndSwap(fateWaiting, fateLeft) {
		return nil, fault.New(fault.Timeout, op, "it was not appended: %w", gone)
	}
	select {
	case a := <-p.done:
		return a.results, a.err
	default:
		return nil, Unknown(gone)
	}
}

// Unknown is the error for an entry that may be in the log.
func Unknown(err error) error {
	return fault.New(fault.UnknownOutcome, op, "the entry may have been committed: %w", err).
		WithHelp("read before trying again, or repeat with the same request id")
}

// Run packs what waits into entries until ctx ends, and returns once those on their way are answered. It is called once. While
// one is on its way the next fills up, and is the larger for it; one that is full need not wait, as long as no more than maxAhead are
// on their way.
func (q *Queue) Run(ctx context.Context, log Log) {
	var answers sync.WaitGroup
	defer answers.Wait()
	defer close(q.ahead)
	answers.Go(q.answer)
	var next packing
	for ahead := 0; ; {
		next.fill(q.waiting)
		if ahead == 0 && len(next.proposals) > 0 || ahead < maxAhead && next.held != nil {
			if e := q.send(log, next.proposals); len(e.proposals) > 0 {
				q.ahead <- e
				ahead++
			}
			next = next.next()
			continue
		}
		waiting := q.waiting
		if next.held != nil {
			waiting = nil
		}
		select {
		case p := <-waiting:
			next.add(p)
		case <-q.landed:
			ahead--
		case <-ctx.Done():
			return
		}
	}
}

// packing is the entry that fills up.
type packing struct {
	proposals []*proposal
	size      int
	held      *proposal // did not fit, and begins the one after
}

// fill takes what waits, until the entry is full.
func (e *packing) fill(waiting <-chan *proposal) {
	for e.held == nil {
		select {
		case p := <-waiting:
			e.add(p)
		default:
			return
		}
	}
}

// add takes a proposal into the entry, or keeps it for the one after. The entry is not full.
func (e *packing) add(p *proposal) {
	if e.size > 0 && e.size+len(p.data) > entry.Full ||
		len(e.proposals) > 0 && (p.kind != entry.Commands || e.proposals[0].kind != entry.Commands) {
		e.held = p
		return
	}
	e.proposals = append(e.proposals, p)
	e.size += len(p.data)
}

// next is the entry after this one.
func (e *packing) next() (after packing) {
	if e.held != nil {
		after.add(e.held)
	}
	return after
}

// send appends an entry of the proposals whose callers have not left; without any it appends nothing.
func (q *Queue) send(log Log, proposals []*proposal) (e onItsWay) {
	var parts [][]byte
	for _, p := range proposals {
		if p.fate.CompareAndSwap(fateWaiting, fateTaken) {
			e.proposals, parts = append(e.proposals, p), append(parts, p.data)
		}
	}
	if len(parts) > 0 {
		e.future = log.Apply(entry.Seal(q.cluster, e.proposals[0].kind, parts...), 0)
	}
	return e
}

// answer hands results to their callers, in the order of the entries.
func (q *Queue) answer() {
	for e := range q.ahead {
		err := e.future.Error()
		q.landed <- struct{}{}
		if err != nil {
			if !errors.Is(err, raft.ErrNotLeader) && !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
				err = Unknown(err)
			}
			for _, p := range e.proposals {
				p.done <- answer{err: err}
			}
			continue
		}
		results, _ := e.future.Response().([]command.Result)
		for _, p := range e.proposals {
			if len(results) < p.n { // the state machine stopped
				p.done <- answer{err: Unknown(ErrEnded)}
				continue
			}
			p.done <- answer{results: results[:p.n:p.n]}
			results = results[p.n:]
		}
	}
}
