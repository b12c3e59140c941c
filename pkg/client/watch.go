package client

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
)

// silence is how long a watch may hear nothing, where the server says something every 5 s, before it is opened anew.
const silence = 15 * time.Second

// Watch calls fn with each item after req.After, in order, and goes on through lost connections and restarts of
// coordinators from the last position seen. It returns when ctx ends, when fn returns an error (that error), or when
// the position was compacted (fault.Compacted, with the floor, a *Position, as detail: list again, then watch from the
// list's index). fn is called from one
// goroutine.
func (c *Client) Watch(ctx context.Context, req *farrierv1.WatchRequest, fn func(*farrierv1.WatchResponse) error) error {
	return c.watchOn(ctx, req, fn, func(error) {})
}

// watchOn is Watch that tells lost of each try that heard nothing.
func (c *Client) watchOn(ctx context.Context, req *farrierv1.WatchRequest, fn func(*farrierv1.WatchResponse) error, lost func(error)) error {
	after := req.GetAfter()
	for failures := 0; ; {
		again := &farrierv1.WatchRequest{After: after, Nodes: req.GetNodes(), Progress: req.GetProgress(), Types: req.GetTypes()}
		heard, err := c.watchOnce(ctx, again, func(item *farrierv1.WatchResponse) error {
			if compacted := item.GetCompacted(); compacted != nil {
				return stop{fault.New(fault.Compacted, "watch", "events before %d are gone", compacted.GetIndex()).
					WithHelp("list the nodes again and watch from the list's index").WithDetail(compacted)}
			}
			if p := item.GetEvent().GetPosition(); p != nil {
				after = p
			} else if p := item.GetSynced(); p != nil {
				after = p
			}
			c.cert.renew(ctx)
			if err := fn(item); err != nil {
				return stop{err}
			}
			return nil
		})
		var s stop
		if errors.As(err, &s) {
			return s.err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if f := Fault(err); f != nil && !repeatable(f.Kind) && f.Kind != fault.Timeout && f.Kind != fault.Internal && f.Kind != fault.Aborted {
			return f
		}
		if heard {
			failures = 0
		} else {
			lost(Fault(err))
		}
		failures++
		if err := (retry.Backoff{}).Sleep(ctx, failures); err != nil {
			return err
		}
	}
}

// stop carries an error that ends the watch through watchOnce.
type stop struct{ err error }

func (s stop) Error() string { return s.err.Error() }

func (c *Client) watchOnce(ctx context.Context, req *farrierv1.WatchRequest, fn func(*farrierv1.WatchResponse) error) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	address := c.endpoints.pick()
	stream, err := c.watch.Watch(ctx, req)
	if err != nil {
		return false, err
	}
	defer stream.Close()
	for stream.Receive() {
		heard = true
		quiet.Reset(silence)
		if err := fn(stream.Msg()); err != nil {
			return heard, err
		}
	}
	err = stream.Err()
	if err == nil || errors.Is(err, io.EOF) {
		err = connect.NewError(connect.CodeUnavailable, errors.New("the coordinator ended the watch"))
	}
	if !heard {
		c.endpoints.failed(address)
	}
	return heard, err
}

// Settled tells whether the node's work is over: no open flow, and a state that does not change by itself.
func Settled(n *farrierv1.Node) bool {
	return n.GetFlow().GetState() != "open" && n.GetTargetPowerState() == "" && !transient(n.GetProvisionState())
}

func transient(state string) bool {
	switch state {
	case "verifying", "deploying", "wait call-back", "deleting", "cleaning", "clean wait", "inspecting", "inspect wait", "adopting",
		"rescuing", "rescue wait", "unrescuing", "servicing", "service wait":
		return true
	default:
		return false
	}
}

// Events calls fn with each event after req.After, or with all that are kept without it, up to now.
func (c *Client) Events(ctx context.Context, req *farrierv1.WatchRequest, fn func(*farrierv1.Event) error) error {
	after := req.GetAfter()
	if after == nil {
		after = &farrierv1.Position{}
	}
	done := errors.New("up to date")
	err := c.watchOn(ctx, &farrierv1.WatchRequest{After: after, Nodes: req.GetNodes(), Types: req.GetTypes()}, func(item *farrierv1.WatchResponse) error {
		if item.GetSynced() != nil {
			return done
		}
		return fn(item.GetEvent())
	}, func(error) {})
	if f := Fault(err); req.GetAfter() == nil && f != nil && f.Kind == fault.Compacted {
		if floor, ok := f.Detail.(*farrierv1.Position); ok {
			return c.Events(ctx, &farrierv1.WatchRequest{After: floor, Nodes: req.GetNodes(), Types: req.GetTypes()}, fn)
		}
	}
	if errors.Is(err, done) {
		return nil
	}
	return err
}
