package leader

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/fault"
)

// ReadIndex asks the leader, wherever it is, for the index that a linearizable read must wait for, until the wait is over.
func (f *Finder) ReadIndex(ctx context.Context) (uint64, error) {
	until := time.Now().Add(f.cfg.Wait)
	for {
		index, err := f.tryReadIndex(ctx, until)
		if err == nil || !Elsewhere(err) || time.Now().After(until) {
			return index, err
		}
		if !Pause(ctx) {
			return 0, fault.New(fault.Timeout, "", "%w: %w", ctx.Err(), err)
		}
	}
}

// Elsewhere tells whether asking again, perhaps another member, may help.
func Elsewhere(err error) bool {
	return fault.Is(err, fault.NotLeader) || fault.Is(err, fault.Unavailable) || fault.Is(err, fault.NoQuorum)
}

func (f *Finder) tryReadIndex(ctx context.Context, until time.Time) (uint64, error) {
	m, err := f.Find(ctx, until)
	if errors.Is(err, ErrHere) {
		return f.cfg.Reader.ReadIndex(ctx)
	}
	if err != nil {
		return 0, err
	}
	return f.index.do(ctx, func(ctx context.Context) (uint64, error) { return f.askIndex(ctx, m) })
}

// askIndex asks another member, which must lead.
func (f *Finder) askIndex(ctx context.Context, m command.Member) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.Era(), cancel)()
	client := fc.NewClusterServiceClient(f.Client(), "https://"+m.APIAddress)
	res, err := client.ReadIndex(ctx, &farrierv1.ReadIndexRequest{})
	if err == nil {
		return res.GetIndex(), nil
	}
	if connect.CodeOf(err) == connect.CodeCanceled { // the leader changed
		return 0, fault.New(fault.NotLeader, "ask leader "+m.ID, "%w", err)
	}
	return 0, fault.New(fault.Unavailable, "ask leader "+m.ID, "%w", err)
}

// Pause waits a moment before the question is asked again; it is false when ctx ended.
func Pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(poll):
		return true
	}
}

// Client sends Connect calls to other coordinators, with this member's certificate.
func (f *Finder) Client() connect.HTTPClient { return doer{f.cfg.Transport} }

// doer is a RoundTripper as Connect clients want it.
type doer struct{ rt http.RoundTripper }

// Do implements connect.HTTPClient.
func (d doer) Do(r *http.Request) (*http.Response, error) { return d.rt.RoundTrip(r) }
