package rpc

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// admit judges a caller by the roster. A member that may be behind asks for the newest state before it turns away who may
// just have joined.
func (a *API) admit(ctx context.Context, c access.Caller) error {
	final, err := access.Admitted(a.Reader.View(), c)
	if err == nil || final {
		return err
	}
	if _, leading := a.Reader.Leading(); !leading && c.Role == identity.RoleCoordinator { // two that do not know each other would ask each other for ever
		return a.leader.NotHere()
	}
	_, err = a.read(access.With(ctx, c), false)
	return err
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

// hold is a context that ends, with the refusal as its cause, when the caller is refused. stop must be called.
func (a *API) hold(ctx context.Context) (held context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	call := &heldCall{caller: access.Of(ctx), end: cancel}
	g := &a.guard
	g.mu.Lock()
	g.held[call] = struct{}{}
	g.mu.Unlock()
	if final, err := access.Admitted(a.Reader.View(), call.caller); final { // since it was admitted
		cancel(err)
	}
	return ctx, func() {
		g.mu.Lock()
		delete(g.held, call)
		g.mu.Unlock()
		cancel(nil)
	}
}

// refusedSince is the refusal that ended a held call, else err.
func refusedSince(held context.Context, err error) error {
	if cause := context.Cause(held); err != nil && fault.Is(cause, fault.Denied) {
		return cause
	}
	return err
}

// Guard ends the calls of those whose certificates are taken back, until ctx ends.
func (a *API) Guard(ctx context.Context, changes Changes) error {
	wake, stop := changes.Subscribe()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			a.guard.look(a.Reader)
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

// certificateService implements CertificateService.
type certificateService struct{ *API }

// ListCertificates implements CertificateService.
func (s certificateService) ListCertificates(ctx context.Context, req *farrierv1.ListCertificatesRequest) (*farrierv1.ListCertificatesResponse, error) {
	v, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	var all []*state.Certificate
	v.Certificates(func(c *state.Certificate) bool {
		if req.GetRole() == "" || req.GetRole() == c.Role {
			all = append(all, c)
		}
		return true
	})
	slices.SortStableFunc(all, func(a, b *state.Certificate) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name), a.JoinedAt.Compare(b.JoinedAt))
	})
	out := &farrierv1.ListCertificatesResponse{}
	for _, c := range all {
		out.Certificates = append(out.Certificates, &farrierv1.Certificate{Key: hex.EncodeToString(c.Key[:]), Role: c.Role, Name: c.Name, Group: c.Group,
			InvitedBy: c.InvitedBy, JoinedAt: message.Stamp(c.JoinedAt), RenewedAt: message.Stamp(c.RenewedAt), Left: durationpb.New(max(c.Ends-v.Elapsed(), 0).Truncate(time.Second)),
			RevokedBy: c.RevokedBy, RevokedAt: message.Stamp(c.RevokedAt), Reason: c.Reason})
	}
	return out, nil
}

// RevokeOperator implements CertificateService. The last operator may go as well: root on a coordinator's host lets the next
// one in.
func (s certificateService) RevokeOperator(ctx context.Context, req *farrierv1.RevokeOperatorRequest) (*farrierv1.RevokeOperatorResponse, error) {
	const op = "revoke operator"
	if err := message.Name("name", req.GetName()); err != nil {
		return nil, fault.Wrap(op, err)
	}
	res, err := s.once(ctx, func() (command.Result, error) {
		return s.propose(ctx, command.RevokeCertificates{Role: string(identity.RoleOperator), Name: req.GetName(), Reason: req.GetReason()})
	})
	if err != nil {
		return nil, fault.Wrap(op, err)
	}
	left := map[string]bool{}
	s.Reader.View().Certificates(func(c *state.Certificate) bool {
		if c.Role == string(identity.RoleOperator) && c.RevokedBy == "" {
			left[c.Name] = true
		}
		return true
	})
	return &farrierv1.RevokeOperatorResponse{Revoked: res.Count, OperatorsLeft: uint64(len(left))}, nil
}
