package replica

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/batch"
	"github.com/farrier-project/farrier/pkg/fault"
)

// readWait bounds a linearizable read, in election timeouts: by then a leader without a quorum has stepped down.
const readWait = 4

// maxReads bounds the callers of ReadIndex that wait.
const maxReads = 16384

// ReadIndex answers an index such that a state that has applied it holds all that was committed before the call.
// It answers on the leader only: fault.NotLeader (with a *fault.LeaderDetail) elsewhere, fault.NoQuorum when too few
// members answer. Calls that wait at the same time share one round of heartbeats.
func (r *Replica) ReadIndex(ctx context.Context) (uint64, error) {
	const op = "read"
	if err := r.latch.Failed(); err != nil {
		return 0, fault.New(fault.Unavailable, op, "%w", err)
	}
	if r.raft.State() != raft.Leader {
		return 0, r.notLeader(op)
	}
	done := make(chan readAnswer, 1)
	select {
	case r.reads <- done:
	case <-ctx.Done():
		return 0, fault.New(fault.Timeout, op, "%w", ctx.Err())
	case <-r.ended:
		return 0, fault.New(fault.Unavailable, op, "%w", batch.ErrEnded)
	}
	select {
	case a := <-done:
		return a.index, a.err
	case <-ctx.Done():
		return 0, fault.New(fault.Timeout, op, "%w", ctx.Err())
	case <-r.ended:
		return 0, fault.New(fault.Unavailable, op, "%w", batch.ErrEnded)
	}
}

type readAnswer struct {
	index uint64
	err   error
}

// runReads answers reads, a round at a time: all that wait at its start share it.
func (r *Replica) runReads(ctx context.Context) error {
	for {
		var round []chan readAnswer
		select {
		case <-ctx.Done():
			return nil
		case d := <-r.reads:
			round = append(round, d)
		}
		for len(r.reads) > 0 {
			round = append(round, <-r.reads) // this goroutine is the only receiver
		}
		index, err := r.readRound(ctx)
		for _, d := range round {
			d <- readAnswer{index, err}
		}
	}
}

// readRound is one linearizable read: this term's barrier is applied, the commit index is taken, and then a quorum
// acknowledges requests of this term that were sent afterwards.
func (r *Replica) readRound(ctx context.Context) (uint64, error) {
	const op = "read"
	ctx, cancel := context.WithTimeout(ctx, readWait*r.cfg.Election)
	defer cancel()
	var term uint64
	for {
		wake := r.leadMoved()
		t, ok := r.Leading()
		if ok {
			term = t
			break
		}
		if r.raft.State() != raft.Leader {
			return 0, r.notLeader(op)
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, r.readTimeout()
		case <-r.latch.Fired():
			return 0, fault.New(fault.Unavailable, op, "%w", r.latch.Failed())
		}
	}
	index := r.home.Log.Visible(r.raft.CommitIndex())
	since := r.trans.Mark()
	nudge := time.NewTicker(r.cfg.Election / 10)
	defer nudge.Stop()
	if len(r.voters()) > 1 {
		r.raft.VerifyLeader() // only for the heartbeats that it sends: its answer may rest on an earlier one
	}
	for {
		ok, wait := r.trans.Quorum(r.voters(), term, since)
		if t, leads := r.Leading(); !leads || t != term {
			return 0, r.notLeader(op)
		}
		if ok {
			return index, nil
		}
		select {
		case <-wait:
		case <-nudge.C:
			r.raft.VerifyLeader()
		case <-ctx.Done():
			return 0, r.readTimeout()
		case <-r.latch.Fired():
			return 0, fault.New(fault.Unavailable, op, "%w", r.latch.Failed())
		}
	}
}

func (r *Replica) readTimeout() error {
	return fault.New(fault.NoQuorum, "read", "too few coordinators answered in %v", readWait*r.cfg.Election).
		WithHelp("wait for the election, or ask for a stale read").WithDetail(&fault.LeaderDetail{})
}

// WaitApplied returns once the index is applied here, so that View holds it. It fails with fault.Timeout.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	for {
		ok, wait := r.machine.Reached(index)
		if ok {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			applied := r.machine.Index()
			return fault.New(fault.Timeout, "wait for the log", "index %d is applied, %d is needed: %w", applied, index, ctx.Err())
		case <-r.latch.Fired():
			return fault.New(fault.Unavailable, "wait for the log", "%w", r.latch.Failed())
		case <-r.ended:
			return fault.New(fault.Unavailable, "wait for the log", "%w", batch.ErrEnded)
		}
	}
}
