package replica

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/pkg/fault"
)

// proposal is the encoded commands of one Propose, which share an entry, or the content of an entry of another kind.
type proposal struct {
	holds entry.Kind
	data  []byte
	n     int // results
	done  chan answer
	fate  atomic.Int32
}

// Fates of a proposal. It leaves fateWaiting once.
const (
	fateWaiting int32 = iota
	fateTaken         // it is in an entry
	fateLeft          // the caller left before
)

type answer struct {
	results []command.Result
	index   uint64
	err     error
}

// batch is an entry on its way.
type batch struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

// Propose appends the commands to the log, in one entry and in order, and answers their results once that entry is
// applied here. Errors: fault.NotLeader (with a *fault.LeaderDetail) and fault.NoQuorum: nothing was appended;
// fault.UnknownOutcome: it may have been; fault.TooLarge, fault.Invalid: it never can be; fault.Busy: too many wait.
// A command that was refused by the state has its error in its result.
func (r *Replica) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	data, err := command.Encode(commands...)
	if err != nil {
		return nil, err
	}
	if len(data) > maxPropose {
		return nil, fault.New(fault.TooLarge, "propose", "%d bytes, the bound is %d", len(data), maxPropose)
	}
	a, err := r.submit(ctx, entry.Commands, data, len(commands))
	return a.results, err
}

// submit queues the content of an entry, or of a part of one, and waits for the answer of n results.
func (r *Replica) submit(ctx context.Context, holds entry.Kind, data []byte, n int) (answer, error) {
	const op = "propose"
	if err := r.latch.Failed(); err != nil {
		return answer{}, fault.New(fault.Unavailable, op, "%w", err)
	}
	if r.raft.State() != raft.Leader {
		return answer{}, r.notLeader(op)
	}
	p := &proposal{holds: holds, data: data, n: n, done: make(chan answer, 1)}
	select {
	case r.queue <- p:
	case <-ctx.Done():
		return answer{}, fault.New(fault.Timeout, op, "%w", ctx.Err())
	default:
		return answer{}, fault.New(fault.Busy, op, "%d proposals wait already", maxWaiting)
	}
	var gone error
	select {
	case a := <-p.done:
		return a, a.err
	case <-ctx.Done():
		gone = ctx.Err()
	case <-r.latch.Fired():
		gone = r.latch.Failed()
	case <-r.ended:
		gone = errEnded
	}
	if p.fate.CompareAndSwap(fateWaiting, fateLeft) {
		return answer{}, fault.New(fault.Timeout, op, "it was not appended: %w", gone)
	}
	select {
	case a := <-p.done:
		return a, a.err
	default:
		return answer{}, unknown(gone)
	}
}

func unknown(err error) error {
	return fault.New(fault.UnknownOutcome, "propose", "the entry may have been committed: %w", err).
		WithHelp("read before trying again, or repeat with the same request id")
}

// runBatches packs what waits into entries. While one is on its way the next fills up, and is the larger for it; one that is
// full need not wait, as long as no more than maxEntriesAhead are on their way.
func (r *Replica) runBatches(ctx context.Context) {
	defer close(r.ahead)
	var next packing
	for ahead := 0; ; {
		next.fill(r.queue)
		if ahead == 0 && len(next.proposals) > 0 || ahead < maxEntriesAhead && next.held != nil {
			if b := r.send(next.proposals); len(b.proposals) > 0 {
				r.ahead <- b
				ahead++
			}
			next = next.next()
			continue
		}
		queue := r.queue
		if next.held != nil {
			queue = nil
		}
		select {
		case p := <-queue:
			next.add(p)
		case <-r.landed:
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
func (e *packing) fill(queue <-chan *proposal) {
	for e.held == nil {
		select {
		case p := <-queue:
			e.add(p)
		default:
			return
		}
	}
}

// add takes a proposal into the entry, or keeps it for the one after. The entry is not full.
func (e *packing) add(p *proposal) {
	if e.size > 0 && e.size+len(p.data) > entry.Full ||
		len(e.proposals) > 0 && (p.holds != entry.Commands || e.proposals[0].holds != entry.Commands) {
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
func (r *Replica) send(proposals []*proposal) (b batch) {
	var parts [][]byte
	for _, p := range proposals {
		if p.fate.CompareAndSwap(fateWaiting, fateTaken) {
			b.proposals, parts = append(b.proposals, p), append(parts, p.data)
		}
	}
	if len(parts) > 0 {
		b.future = r.raft.Apply(entry.Seal(r.cfg.Cluster, b.proposals[0].holds, parts...), 0)
	}
	return b
}

// runAnswers hands results to their callers, in the order of the entries.
func (r *Replica) runAnswers() {
	for b := range r.ahead {
		err := b.future.Error()
		r.landed <- struct{}{}
		if err != nil {
			err = r.proposeError(err)
			for _, p := range b.proposals {
				p.done <- answer{err: err}
			}
			continue
		}
		results, _ := b.future.Response().([]command.Result)
		for _, p := range b.proposals {
			if len(results) < p.n { // the state machine stopped
				p.done <- answer{err: unknown(errEnded)}
				continue
			}
			p.done <- answer{results: results[:p.n:p.n], index: b.future.Index()}
			results = results[p.n:]
		}
	}
}

// proposeError says whether an entry that raft refused may be in the log.
func (r *Replica) proposeError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return r.notLeader("propose")
	default:
		return unknown(err)
	}
}

// notLeader says who leads, if anybody is known to.
func (r *Replica) notLeader(op string) error {
	id, _, known := r.Leader()
	if !known || id == r.cfg.Member { // it was deposed, and has not heard of another
		return fault.New(fault.NoQuorum, op, "no leader is known: too few coordinators answer each other").
			WithHelp("wait for the election; if it lasts, see `farrier coordinator members` and start the missing members").
			WithDetail(&fault.LeaderDetail{})
	}
	detail := &fault.LeaderDetail{}
	if m, ok := r.View().Member(id); ok {
		detail.Address = m.APIAddress
	}
	return fault.New(fault.NotLeader, op, "coordinator %s leads", id).WithDetail(detail)
}
