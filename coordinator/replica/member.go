package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/batch"
	"github.com/farrier-project/farrier/pkg/fault"
)

// AddVoter makes a voter of a member, or changes its address. On the leader only; it returns once the change is
// committed, and has waited for up to four election timeouts that all voters have it.
//
// A new member is sent the log first, and has no vote until it has caught up: a voter that takes minutes to read a snapshot
// could be the one that each commit waits for. Until then AddVoter waits, as long as ctx lets it; it fails with fault.Timeout,
// the member goes on catching up, and AddVoter is called again, here or at the next leader.
func (r *Replica) AddVoter(ctx context.Context, id, address string) error {
	const op = "add coordinator"
	now, there := r.server(id)
	if !there {
		r.trans.Forget(raft.ServerID(id)) // it may have been a member before, with another log
	}
	if !there || now.Suffrage != raft.Voter && string(now.Address) != address {
		err := r.change(ctx, op, func(t time.Duration) raft.IndexFuture {
			return r.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, t)
		})
		if err != nil {
			return err
		}
	}
	if !there || now.Suffrage != raft.Voter {
		if err := r.caughtUp(ctx, id); err != nil {
			return err
		}
	}
	return r.change(ctx, op, func(t time.Duration) raft.IndexFuture {
		return r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, t)
	})
}

// caughtUp waits until a member had, within the last election timeout, all that was committed then: to send it the rest
// takes no longer (Raft dissertation, section 4.2.1).
func (r *Replica) caughtUp(ctx context.Context, id string) error {
	for {
		a, moved := r.trans.Newest(raft.ServerID(id))
		_, there := r.server(id)
		switch {
		case r.raft.State() != raft.Leader:
			return r.notLeader("add coordinator")
		case !there:
			return fault.New(fault.IllegalState, "add coordinator", "%s was removed meanwhile", id)
		case a.Term == r.raft.CurrentTerm() && time.Since(a.Level) <= r.cfg.Election:
			return nil
		}
		select {
		case <-moved:
		case <-time.After(r.cfg.Election): // without others nobody acknowledges anything
		case <-ctx.Done():
			return fault.New(fault.Timeout, "add coordinator", "%s has not caught up yet: it has %d of %d entries", id, a.Match, r.raft.CommitIndex())
		case <-r.latch.Fired():
			return fault.New(fault.Unavailable, "add coordinator", "%w", r.latch.Failed())
		case <-r.ended:
			return fault.New(fault.Unavailable, "add coordinator", "%w", batch.ErrEnded)
		}
	}
}

// server is a member of the newest configuration.
func (r *Replica) server(id string) (s raft.Server, there bool) {
	for _, s := range r.servers() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// RemoveServer removes a member. On the leader only; it returns once the change is committed. The last voter stays.
func (r *Replica) RemoveServer(ctx context.Context, id string) error {
	if v := r.voters(); len(v) == 1 && string(v[0]) == id {
		return fault.New(fault.IllegalState, "remove coordinator", "%s is the only one", id)
	}
	return r.change(ctx, "remove coordinator", func(t time.Duration) raft.IndexFuture {
		return r.raft.RemoveServer(raft.ServerID(id), 0, t)
	})
}

func (r *Replica) change(ctx context.Context, op string, call func(time.Duration) raft.IndexFuture) error {
	if err := r.latch.Failed(); err != nil {
		return fault.New(fault.Unavailable, op, "%w", err)
	}
	if r.raft.State() != raft.Leader {
		return r.notLeader(op)
	}
	done := make(chan error, 1)
	var index uint64
	go func() { // ends when raft answers or stops leading
		f := call(stopTimeout)
		err := f.Error()
		index = f.Index()
		done <- err
	}()
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrNotLeader) {
			return r.notLeader(op)
		}
		if err != nil {
			return batch.Unknown(fmt.Errorf("%s: %w", op, err))
		}
		return r.settle(ctx, index)
	case <-ctx.Done():
		return batch.Unknown(ctx.Err())
	case <-r.latch.Fired():
		return batch.Unknown(r.latch.Failed())
	}
}

// settle waits, for a while, until all voters have the entry that changed the configuration. A voter that has not heard
// of a new member refuses it as a candidate, while the new member's longer log refuses the voter: should the leader die
// in that moment, nobody could be elected until it returns.
func (r *Replica) settle(ctx context.Context, index uint64) error {
	limit := time.NewTimer(readWait * r.cfg.Election)
	defer limit.Stop()
	for {
		ok, wait := r.trans.Matched(r.voters(), r.raft.CurrentTerm(), index)
		if ok {
			return nil
		}
		select {
		case <-wait:
		case <-limit.C:
			r.log.Warn("the members changed while one of them does not answer", "index", index)
			return nil // committed all the same
		case <-ctx.Done():
			return nil
		case <-r.latch.Fired():
			return nil
		}
	}
}

// Servers lists the members of the cluster as raft knows them.
func (r *Replica) Servers() []Server {
	term, leading := r.Leading()
	r.lead.mu.Lock()
	since := r.lead.since
	r.lead.mu.Unlock()
	commit := r.raft.CommitIndex()
	var out []Server
	for _, s := range r.servers() {
		a, _ := r.trans.Newest(s.ID)
		m := Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter, Contact: a.At}
		if leading && m.ID != r.cfg.Member {
			m.Silent = min(time.Since(m.Contact), time.Since(since))
			m.Lag = min(time.Since(a.Level), time.Since(since))
			if a.Term == term {
				m.Match = a.Match
			}
			m.Behind = commit - min(m.Match, commit)
		}
		out = append(out, m)
	}
	return out
}
