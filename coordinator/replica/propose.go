package replica

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/pkg/fault"
)

// maxPropose bounds the bytes of one Propose.
const maxPropose = 512 << 10

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
	return r.submit(ctx, entry.Commands, data, len(commands))
}

// submit puts the content of an entry, or of a part of one, in the log, and waits for its n results.
func (r *Replica) submit(ctx context.Context, k entry.Kind, data []byte, n int) ([]command.Result, error) {
	const op = "propose"
	if err := r.latch.Failed(); err != nil {
		return nil, fault.New(fault.Unavailable, op, "%w", err)
	}
	if r.raft.State() != raft.Leader {
		return nil, r.notLeader(op)
	}
	results, err := r.queue.Submit(ctx, k, data, n)
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		err = r.notLeader(op)
	}
	return results, err
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
