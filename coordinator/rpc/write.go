package rpc

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
func (a *API) command(ctx context.Context, body command.Body) command.Command {
	c := a.Reader.View().Cluster()
	h := command.Header{Cluster: c.ID, At: a.Clock.Now(), Actor: access.Of(ctx).Actor(), Request: requestOf(ctx), Level: c.Level}
	_, _ = rand.Read(h.Seed[:]) // crypto/rand.Read never fails
	return command.Command{Header: h, Body: body}
}

// propose puts one command in the log and answers its result.
func (a *API) propose(ctx context.Context, body command.Body) (command.Result, error) {
	return a.proposeCommand(ctx, a.command(ctx, body))
}

// proposeAlso is for the second and later commands of one request: the request's id belongs to the first.
func (a *API) proposeAlso(ctx context.Context, body command.Body) (command.Result, error) {
	cmd := a.command(ctx, body)
	cmd.Header.Request = command.RequestID{}
	return a.proposeCommand(ctx, cmd)
}

func (a *API) proposeCommand(ctx context.Context, cmd command.Command) (command.Result, error) {
	res, err := a.Proposer.Propose(ctx, cmd)
	if err != nil {
		return command.Result{}, err
	}
	if len(res) != 1 {
		return command.Result{}, fault.New(fault.Internal, "propose", "%d results for one command", len(res))
	}
	return res[0], res[0].Err
}

// queue puts a command in the log that may have to wait for the node's lock.
func (a *API) queue(ctx context.Context, body command.Body, w *farrierv1.LockWait) (command.Result, error) {
	wait, err := lockWait(w)
	if err != nil {
		return command.Result{}, err
	}
	if until, bounded := ctx.Deadline(); bounded {
		wait = waitWithin(wait, time.Until(until))
	}
	held, stop := a.hold(ctx)
	defer stop()
	res, err := a.Queue.ProposeQueued(held, a.command(ctx, body), wait)
	if err != nil {
		return command.Result{}, refusedSince(held, err)
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

// once is the result of the caller's request: the stored one when it was done before, else do's, which checks the
// request against the state and proposes it. A repeat must not be checked again: what it asks for may be refused now
// because it is done.
func (a *API) once(ctx context.Context, do func() (command.Result, error)) (command.Result, error) {
	if res, done := a.answered(ctx); done {
		return res, nil
	}
	return do()
}

// answered is the stored result of the caller's request, if this is a repeat of it.
func (a *API) answered(ctx context.Context) (command.Result, bool) {
	return a.Reader.View().Answered(access.Of(ctx).Actor(), requestOf(ctx))
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
	d := w.GetWait().AsDuration()
	if d < 0 || d > maxLockWait {
		return 0, refusal.Invalid("wait", "%v is not between 0 and %v", d, maxLockWait)
	}
	return d, nil
}
