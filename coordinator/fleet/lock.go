package fleet

import (
	"context"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
)

// ListLocks implements LockService.
func (s *Service) ListLocks(ctx context.Context, req *farrierv1.ListLocksRequest) (*farrierv1.ListLocksResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	out := &farrierv1.ListLocksResponse{}
	if req.GetNode() != "" {
		n, err := message.FindNode(v, req.GetNode())
		if err != nil {
			return nil, err
		}
		if l := s.out.Lock(n); l != nil {
			out.Locks = append(out.Locks, l)
		}
		return out, nil
	}
	v.Held(func(n *node.Node) bool {
		out.Locks = append(out.Locks, s.out.Lock(n))
		return true
	})
	return out, nil
}

// BreakLock implements LockService.
func (s *Service) BreakLock(ctx context.Context, req *farrierv1.BreakLockRequest) (*farrierv1.BreakLockResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetNode())
		if err == nil {
			err = message.Text("reason", req.GetReason(), message.MaxText)
		}
		if err == nil && strings.TrimSpace(req.GetReason()) == "" {
			err = refusal.Invalid("reason", "say why: it is recorded with your name").WithHelp("farrier lock break %s --reason TEXT", message.Label(n))
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, command.BreakLock{Node: n.ID, Token: lock.Token(req.GetToken()), Reason: req.GetReason()})
	})
	if err != nil {
		return nil, fault.Wrap("break lock", err)
	}
	return &farrierv1.BreakLockResponse{Lock: s.lockNow(res.Node)}, nil
}

func (s *Service) lockNow(id node.ID) *farrierv1.Lock {
	if n, ok := s.cfg.Desk.View().Node(id); ok {
		return s.out.Lock(n)
	}
	return nil
}

// AcquireLock implements LockService. The lock belongs to the caller's client session: the header Farrier-Client
// names it.
func (s *Service) AcquireLock(ctx context.Context, req *farrierv1.AcquireLockRequest) (*farrierv1.AcquireLockResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetNode())
		if err == nil {
			err = message.Text("purpose", req.GetPurpose(), message.MaxName)
		}
		id := request.ID(ctx)
		if err == nil && id.IsZero() {
			err = refusal.Invalid(request.HeaderClient, "a lock belongs to a client session, and the request names none").
				WithHelp("send the headers %s and %s, as the Go client does", request.HeaderClient, request.HeaderSequence)
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Queue(ctx, command.AcquireLock{Node: n.ID, Session: id.Client, Holder: access.Of(ctx).Actor(), Task: "operator", Purpose: req.GetPurpose()}, req.GetWait())
	})
	if err != nil {
		return nil, fault.Wrap("acquire lock", err)
	}
	l := s.lockNow(res.Node)
	if l.GetToken() != uint64(res.Token) { // a repeat, and the lock is another's by now
		return nil, fault.New(fault.Expired, "acquire lock", "the lock was granted and is gone again")
	}
	return &farrierv1.AcquireLockResponse{Lock: l}, nil
}

// ReleaseLock implements LockService. Who holds the token may release.
func (s *Service) ReleaseLock(ctx context.Context, req *farrierv1.ReleaseLockRequest) (*farrierv1.ReleaseLockResponse, error) {
	_, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetNode())
		if err == nil && req.GetToken() == 0 {
			err = refusal.Invalid("token", "name the token that AcquireLock gave")
		}
		if err == nil && n.Lock.Flow != 0 {
			err = fault.New(fault.Denied, "", "the lock is the flow's, not an operator's").WithHelp("`farrier lock break` takes it")
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, command.ReleaseLock{Node: n.ID, Token: lock.Token(req.GetToken())})
	})
	return &farrierv1.ReleaseLockResponse{}, fault.Wrap("release lock", err)
}
