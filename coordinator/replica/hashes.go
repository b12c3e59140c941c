package replica

import (
	"context"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/ballot"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
)

// runHashes sends this member's checkpoints to the others as they come, and judges what comes back.
func (r *Replica) runHashes(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.ballotsMoved:
		}
		if err := r.judge(); err != nil {
			return r.latch.Fail(err)
		}
		own := r.ballots.Own()
		if len(own) == 0 || own[len(own)-1].Index == r.hashSent {
			continue
		}
		r.hashSent = own[len(own)-1].Index
		var wg sync.WaitGroup
		for _, s := range r.servers() {
			if s.ID == raft.ServerID(r.cfg.Member) {
				continue
			}
			wg.Go(func() {
				if err := r.side.Send(ctx, string(s.Address), own.Encode()); err != nil {
					r.log.Debug("state hash not delivered", "member", s.ID, "err", err)
				}
			})
		}
		wg.Wait()
	}
}

func (r *Replica) judge() error {
	var voters []string
	for _, s := range r.servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	minority, differ := r.ballots.Verdict(voters)
	if minority != 0 {
		return fatal.Corrupt("replicated state", "at index %d a majority of the members agrees on another state", minority)
	}
	if differ != 0 && r.differs.Swap(differ) != differ {
		r.log.Error("members differ in their state, and there is no majority to say who is right", "index", differ)
	}
	return nil
}

// checked is told what hash this member's state has at an index.
func (r *Replica) checked(c ballot.Checkpoint) {
	r.ballots.Put(r.cfg.Member, ballot.Message{c})
	poke(r.ballotsMoved)
}

// heard takes a message of another member.
func (r *Replica) heard(member string, message io.Reader) {
	if !r.ready.Load() {
		return
	}
	m, err := ballot.Read(message)
	if err != nil {
		return // it was cut off: there will be others
	}
	known := false
	for _, s := range r.servers() {
		known = known || string(s.ID) == member
	}
	if !known || member == r.cfg.Member {
		return
	}
	r.ballots.Put(member, m)
	poke(r.ballotsMoved)
}

// poke wakes a receiver up, once.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
