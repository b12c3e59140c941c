package request

import (
	"context"
	"crypto/rand"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Waits for a held lock.
const (
	defaultLockWait = 3 * time.Second
	maxLockWait     = time.Hour
	answerMargin    = 500 * time.Millisecond // before a caller's deadline, for the answer to reach it
)

// command stamps a body with all that Apply may not find out for itself.
func (d *Desk) command(ctx context.Context, body command.Body) command.Command {
	c := d.cfg.Reader.View().Cluster()
	h := command.Header{Cluster: c.ID, At: d.cfg.Clock.Now(), Actor: access.Of(ctx).Actor(), Request: ID(ctx), Level: c.Level}
	_, _ = rand.Read(h.Seed[:]) // crypto/rand.Read never fails
	return command.Command{Header: h, Body: body}
}

// Propose puts one command in the log and answers its result.
func (d *Desk) Propose(ctx context.Context, body command.Body) (command.Result, error) {
	res, err := d.propose(ctx, d.command(ctx, body))
	if err != nil {
		return command.Result{}, err
	}
	return res[0], res[0].Err
}

// ProposeAlso puts commands in the log, as one proposal, that are not the request itself but come with it: the request's id is
// not theirs. There is a result for each.
func (d *Desk) ProposeAlso(ctx context.Context, bodies ...command.Body) ([]command.Result, error) {
	cmds := make([]command.Command, 0, len(bodies))
	for _, b := range bodies {
		cmd := d.command(ctx, b)
		cmd.Header.Request = command.RequestID{}
		cmds = append(cmds, cmd)
	}
	return d.propose(ctx, cmds...)
}

func (d *Desk) propose(ctx context.Context, cmds ...command.Command) ([]command.Result, error) {
	res, err := d.cfg.Proposer.Propose(ctx, cmds...)
	if err == nil && len(res) != len(cmds) {
		err = fault.New(fault.Internal, "propose", "%d results for %d commands", len(res), len(cmds))
	}
	return res, err
}

// Queue puts a command in the log that may have to wait for the node's lock.
func (d *Desk) Queue(ctx context.Context, body command.Body, w *farrierv1.LockWait) (command.Result, error) {
	wait, err := lockWait(w)
	if err != nil {
		return command.Result{}, err
	}
	if until, bounded := ctx.Deadline(); bounded {
		wait = waitWithin(wait, time.Until(until))
	}
	held, stop := d.Hold(ctx)
	defer stop()
	res, err := d.cfg.Queue.ProposeQueued(held, d.command(ctx, body), wait)
	if err != nil {
		return command.Result{}, RefusedSince(held, err)
	}
	return res, res.Err
}

// waitWithin shortens a wait so that it ends before the caller leaves, and the caller is told who holds the lock instead of
// that time is up. Negative is without bound.
func waitWithin(wait, left time.Duration) time.Duration {
	most := max(left-min(left/4, answerMargin), 0)
	if wait < 0 || wait > most {
		return most
	}
	return wait
}

// Once is the result of the caller's request: the stored one when it was done before, else do's, which checks the
// request against the state and proposes it. A repeat must not be checked again: what it asks for may be refused now
// because it is done.
func (d *Desk) Once(ctx context.Context, do func() (command.Result, error)) (command.Result, error) {
	if res, done := d.Answered(ctx); done {
		return res, nil
	}
	return do()
}

// Answered is the stored result of the caller's request, if this is a repeat of it.
func (d *Desk) Answered(ctx context.Context) (command.Result, bool) {
	return d.cfg.Reader.View().Answered(access.Of(ctx).Actor(), ID(ctx))
}

// lockWait reads how long a caller waits for a lock: negative is as long as it stays.
func lockWait(w *farrierv1.LockWait) (time.Duration, error) {
	switch {
	case w.GetPatient():
		return -1, nil
	case w.GetWait() == nil:
		return defaultLockWait, nil
	}
	if err := w.GetWait().CheckValid(); err != nil {
		return 0, refusal.Invalid("wait", "%w", err)
	}
	long := w.GetWait().AsDuration()
	if long < 0 || long > maxLockWait {
		return 0, refusal.Invalid("wait", "%v is not between 0 and %v", long, maxLockWait)
	}
	return long, nil
}
