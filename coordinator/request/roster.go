package request

import (
	"context"
	"sync"

	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Admit judges a caller by the roster. A member that may be behind asks for the newest state before it turns away who may
// just have joined.
func (d *Desk) Admit(ctx context.Context, c access.Caller) error {
	final, err := access.Admitted(d.cfg.Reader.View(), c)
	if err == nil || final {
		return err
	}
	if _, leading := d.cfg.Reader.Leading(); !leading && c.Role == identity.RoleCoordinator { // two that do not know each other would ask each other for ever
		return d.cfg.Leader.NotHere()
	}
	_, err = d.Read(access.With(ctx, c), false)
	return err
}

// Refused is the refusal that the caller gets whoever leads: the certificate was taken back, or its key is known as that of another.
func (d *Desk) Refused(c access.Caller) error {
	if final, err := access.Admitted(d.cfg.Reader.View(), c); final {
		return err
	}
	return nil
}

// guard holds the calls that stay for long, so that they end when their caller's certificate is taken back.
type guard struct {
	mu     sync.Mutex // guards the fields below
	held   map[*heldCall]struct{}
	roster uint64 // that was looked at last
}

type heldCall struct {
	caller access.Caller
	end    context.CancelCauseFunc
}

// Hold is a context that ends, with the refusal as its cause, when the caller is refused. stop must be called.
func (d *Desk) Hold(ctx context.Context) (held context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	call := &heldCall{caller: access.Of(ctx), end: cancel}
	g := &d.guard
	g.mu.Lock()
	g.held[call] = struct{}{}
	g.mu.Unlock()
	if err := d.Refused(call.caller); err != nil { // since it was admitted
		cancel(err)
	}
	return ctx, func() {
		g.mu.Lock()
		delete(g.held, call)
		g.mu.Unlock()
		cancel(nil)
	}
}

// RefusedSince is the refusal that ended a held call, else err.
func RefusedSince(held context.Context, err error) error {
	if cause := context.Cause(held); err != nil && fault.Is(cause, fault.Denied) {
		return cause
	}
	return err
}

// Guard ends the calls of those whose certificates are taken back, until ctx ends. wake comes after each applied entry.
func (d *Desk) Guard(ctx context.Context, wake <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			d.guard.look(d.cfg.Reader)
		}
	}
}

// look makes no view while nobody stays.
func (g *guard) look(r Reader) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.held) == 0 {
		return
	}
	v := r.View()
	if v.Roster() == g.roster {
		return
	}
	g.roster = v.Roster()
	for call := range g.held {
		if final, err := access.Admitted(v, call.caller); final {
			call.end(err)
		}
	}
}
