package rpc

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// read is a view that holds everything committed before the call, unless stale is asked for. A caller that this view's roster
// does not have is refused, whatever the member knew when the call came.
func (a *API) read(ctx context.Context, stale bool) (*state.View, error) {
	if stale {
		return a.Reader.View(), nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*a.LeaderWait, errReadTimeout)
	defer cancel()
	index, err := a.readIndex(ctx)
	if err != nil {
		if errors.Is(context.Cause(ctx), errReadTimeout) {
			return nil, errReadTimeout
		}
		return nil, fault.Wrap("read", err)
	}
	if err := a.Reader.WaitApplied(ctx, index); err != nil {
		if errors.Is(context.Cause(ctx), errReadTimeout) {
			return nil, fault.New(fault.Timeout, "read", "coordinator %s is behind: it has applied %d of %d log entries", a.ID, a.Reader.View().Index(), index).
				WithHelp("ask another coordinator; `farrier coordinator members` shows who is behind; a stale read answers at once")
		}
		return nil, fault.Wrap("read", err)
	}
	v := a.Reader.View()
	if _, err := access.Admitted(v, access.Of(ctx)); err != nil {
		return nil, err
	}
	return v, nil
}

var errReadTimeout = fault.New(fault.NoQuorum, "read", "no leader confirmed the read in time").
	WithHelp("more than half of the coordinators must run; a stale read answers without them")

// readIndex asks the leader for the index, wherever it is, until the wait is over.
func (a *API) readIndex(ctx context.Context) (uint64, error) {
	until := time.Now().Add(a.LeaderWait)
	for {
		index, err := a.tryReadIndex(ctx, until)
		if err == nil || !elsewhere(err) || time.Now().After(until) {
			return index, err
		}
		select {
		case <-ctx.Done():
			return 0, fault.New(fault.Timeout, "", "%w: %w", ctx.Err(), err)
		case <-time.After(leaderPoll):
		}
	}
}

// elsewhere tells whether asking again, perhaps another member, may help.
func elsewhere(err error) bool {
	return fault.Is(err, fault.NotLeader) || fault.Is(err, fault.Unavailable) || fault.Is(err, fault.NoQuorum)
}

func (a *API) tryReadIndex(ctx context.Context, until time.Time) (uint64, error) {
	m, err := a.forward.leader(ctx, until)
	if errors.Is(err, errLocal) {
		return a.Reader.ReadIndex(ctx)
	}
	if err != nil {
		return 0, err
	}
	return a.forward.index.do(ctx, func(ctx context.Context) (uint64, error) { return a.forward.askIndex(ctx, m) })
}

// askIndex asks another member, which must lead.
func (f *Forwarder) askIndex(ctx context.Context, m command.Member) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.current(), cancel)()
	client := fc.NewClusterServiceClient(doer{f.transport}, "https://"+m.APIAddress)
	res, err := client.ReadIndex(ctx, &farrierv1.ReadIndexRequest{})
	if err == nil {
		return res.GetIndex(), nil
	}
	if connect.CodeOf(err) == connect.CodeCanceled { // the leader changed
		return 0, fault.New(fault.NotLeader, "ask leader "+m.ID, "%w", err)
	}
	return 0, fault.New(fault.Unavailable, "ask leader "+m.ID, "%w", err)
}

// memberByID is a member's record, zero when there is none.
func memberByID(v *state.View, id string) (command.Member, bool) {
	m, ok := v.Member(id)
	if !ok {
		return command.Member{}, false
	}
	return *m, true
}
