package replica

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/fault"
)

// proposal is the encoded commands of one Propose, which share an entry, or the content of an entry of another kind.
type proposal struct {
	holds byte
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
	a, err := r.submit(ctx, entryCommands, data, len(commands))
	return a.results, err
}

// submit queues the content of an entry, or of a part of one, and waits for the answer of n results.
func (r *Replica) submit(ctx context.Context, holds byte, data []byte, n int) (answer, error) {
	const op = "propose"
	if err := r.latch.failed(); err != nil {
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
	case <-r.latch.fired:
		gone = r.latch.failed()
	case <-r.ended:
		gone = errClosed
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

// runBatches packs what waits into entries.
func (r *Replica) runBatches(ctx context.Context) {
	defer close(r.ahead)
	var held *proposal // did not fit into the entry before
	for {
		first := held
		held = nil
		if first == nil {
			select {
			case first = <-r.queue:
			case <-ctx.Done():
				return
			}
		}
		select { // while entries are on their way, the next one fills up
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		ps, next := r.pack(first)
		held = next
		if len(ps) == 0 {
			<-r.slots
			continue
		}
		parts := make([][]byte, len(ps))
		for i, p := range ps {
			parts[i] = p.data
		}
		r.ahead <- batch{future: r.raft.Apply(sealEntry(r.cfg.Cluster, ps[0].holds, parts...), 0), proposals: ps}
	}
}

// pack takes waiting proposals up to the bound; next is the one that did not fit.
func (r *Replica) pack(first *proposal) (ps []*proposal, next *proposal) {
	size := 0
	for p := first; p != nil; {
		if size > 0 && size+len(p.data) > maxEntryBytes || len(ps) > 0 && (p.holds != entryCommands || ps[0].holds != entryCommands) {
			return ps, p
		}
		if p.fate.CompareAndSwap(fateWaiting, fateTaken) {
			ps = append(ps, p)
			size += len(p.data)
		}
		select {
		case p = <-r.queue:
		default:
			p = nil
		}
	}
	return ps, nil
}

// runAnswers hands results to their callers, in the order of the entries.
func (r *Replica) runAnswers() {
	for b := range r.ahead {
		err := b.future.Error()
		<-r.slots
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
				p.done <- answer{err: unknown(errClosed)}
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
