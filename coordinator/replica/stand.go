package replica

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// runStanding makes this member stand for election at once when the leader's process has ended, where the election timeout
// would first let half a second or more pass. A process that ends closes its connections, and its Raft port refuses the
// next one: a leader that is slow, stopped or cut off does neither, and is left to the timeout, as is a machine that lost
// its power. Raft's safety does not rest on when members stand, so a wrong guess costs one election.
func (r *Replica) runStanding(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case member := <-r.hungUp:
			if err := r.standFor(ctx, member); err != nil && ctx.Err() == nil {
				r.log.Info("this coordinator does not stand for election before the timeout", "leader", member, "err", err)
			}
		}
	}
}

// standFor stands for election in the place of the member, if that one led and its process has ended. Members stand one
// after another, in the order of their names, so that they do not split the vote; one whose log is behind is refused by the
// others, and the next stands.
func (r *Replica) standFor(ctx context.Context, member string) error {
	since, voters := time.Now(), r.voters()
	slices.Sort(voters)
	voters = slices.DeleteFunc(voters, func(id raft.ServerID) bool { return string(id) == member })
	place := slices.Index(voters, raft.ServerID(r.cfg.Member))
	if place < 0 {
		return nil
	}
	for leader, address, _ := r.Leader(); leader == member; leader, address, _ = r.Leader() {
		switch ended, err := r.deserted(ctx, address); {
		case ended:
			return r.standAt(ctx, place, member)
		case err == nil || ctx.Err() != nil || r.raft.State() != raft.Follower || r.raft.LastContact().After(since):
			return nil
		} // nothing is known yet: this machine is slow, or the other
	}
	return nil
}

// standAt stands when it is this member's turn.
func (r *Replica) standAt(ctx context.Context, place int, member string) error {
	select {
	case <-time.After(time.Duration(place) * r.cfg.Election / 4):
	case <-ctx.Done():
		return nil
	}
	if now, _, known := r.Leader(); known && now != member || r.raft.State() != raft.Follower {
		return nil
	}
	r.log.Info("the leader's process has ended: this coordinator stands for election", "leader", member)
	// What raft does with TimeoutNow is what is wanted here (Raft dissertation, section 3.10); it has no call for it.
	address := r.port.Addr().String()
	self := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(r.cfg.Member), Addr: []byte(address)}
	return r.trans.TimeoutNow(raft.ServerID(r.cfg.Member), raft.ServerAddress(address),
		&raft.TimeoutNowRequest{RPCHeader: self}, &raft.TimeoutNowResponse{})
}

// deserted asks whether the process at the address has ended, for half an election timeout.
func (r *Replica) deserted(ctx context.Context, address string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Election/2)
	defer cancel()
	return r.port.Deserted(ctx, address, r.cfg.Election/50)
}

// callerEnded is told that a member ended a connection on which it called this one.
func (r *Replica) callerEnded(member string) {
	if !r.ready.Load() {
		return
	}
	if leader, _, _ := r.Leader(); leader == member {
		select {
		case r.hungUp <- member:
		default: // it has more than one: the first is looked at
		}
	}
}
