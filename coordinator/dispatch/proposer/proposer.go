package proposer

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	busyPause = 5 * time.Millisecond // when too many proposals wait
	within    = 10 * time.Second     // see Bounded
)

// Replica is the replicated state as commands are proposed to it.
type Replica interface {
	// Propose answers once the commands are applied on this member, one result for each. Its own error means that
	// none is known to be applied.
	Propose(ctx context.Context, cmds ...command.Command) ([]command.Result, error)
	// View is the newest state. It never goes back, and it includes everything that Propose has answered.
	View() *state.View
}

// Proposer proposes commands. It is safe for concurrent use.
type Proposer struct {
	member  string
	replica Replica
	clock   clock.Clock
}

// New is a Proposer of the member with the name.
func New(member string, r Replica, c clock.Clock) *Proposer {
	return &Proposer{member: member, replica: r, clock: c}
}

// Bounded is ctx for a proposal that somebody waits for: a tick, a due command, an opening session.
func Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, within)
}

// View is the newest state.
func (p *Proposer) View() *state.View { return p.replica.View() }

// Self is who this member is in the commands of its own.
func (p *Proposer) Self() string { return "coordinator " + p.member }

// Stamp gives bodies their headers. Seeds are fresh: ids that a command opens are derived from them.
func (p *Proposer) Stamp(actor string, bodies ...command.Body) []command.Command {
	cluster := p.replica.View().Cluster()
	now := p.clock.Now()
	cmds := make([]command.Command, len(bodies))
	for i, b := range bodies {
		cmds[i] = command.Command{
			Header: command.Header{Cluster: cluster.ID, Level: cluster.Level, At: now, Actor: actor},
			Body:   b,
		}
		if opensBoots(b) {
			rand.Read(cmds[i].Header.Seed[:])
		}
	}
	return cmds
}

// opensBoots tells whether applying b may draw an id. Locks and ticks, of which there are many, do not.
func opensBoots(b command.Body) bool {
	switch b.(type) {
	case command.Tick, command.AcquireLock, command.ReleaseLock, command.HandoverAck, command.Batch: // a batch is of locks
		return false
	}
	return true
}

// Propose stamps bodies and proposes them as they are.
func (p *Proposer) Propose(ctx context.Context, actor string, bodies ...command.Body) ([]command.Result, error) {
	return p.replica.Propose(ctx, p.Stamp(actor, bodies...)...)
}

// One proposes one command that has its header. The error is its refusal, too.
func (p *Proposer) One(ctx context.Context, cmd command.Command) (command.Result, error) {
	results, err := p.replica.Propose(ctx, cmd)
	if err != nil {
		return command.Result{}, err
	}
	return results[0], results[0].Err
}

// All proposes commands whose number and size nobody has weighed: a proposal that is too large is made in
// halves, one that finds the replica busy is made again. A command that alone is too large has that as its result.
func (p *Proposer) All(ctx context.Context, cmds []command.Command) ([]command.Result, error) {
	for {
		results, err := p.replica.Propose(ctx, cmds...)
		switch {
		case fault.Is(err, fault.TooLarge) && len(cmds) > 1:
			half := len(cmds) / 2
			first, err := p.All(ctx, cmds[:half])
			if err != nil {
				return nil, err
			}
			second, err := p.All(ctx, cmds[half:])
			if err != nil {
				return nil, fault.New(fault.UnknownOutcome, "propose", "a part of it is committed: %w", err)
			}
			return append(first, second...), nil
		case fault.Is(err, fault.TooLarge):
			return []command.Result{{Err: err}}, nil
		case !fault.Is(err, fault.Busy):
			return results, err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "propose", "too many proposals wait: %w", ctx.Err())
		}
	}
}
