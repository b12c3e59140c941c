package leader

import (
	"context"
	"errors"
	"sync"
)

// coalesced shares one call among those that arrived before it began.
type coalesced struct {
	mu   sync.Mutex // guards next
	next *sharedCall
	turn sync.Mutex // held by the call in work
}

type sharedCall struct {
	done  chan struct{}
	value uint64
	err   error
}

// do joins the next call, which has not begun, or makes it. fn runs under the context of the caller that makes
// it; who joined tries again on its own if that one left.
func (c *coalesced) do(ctx context.Context, fn func(context.Context) (uint64, error)) (uint64, error) {
	for {
		c.mu.Lock()
		call, mine := c.next, false
		if call == nil {
			call, mine = &sharedCall{done: make(chan struct{})}, true
			c.next = call
		}
		c.mu.Unlock()
		if mine {
			c.turn.Lock()
			c.mu.Lock()
			c.next = nil // from here on, who arrives needs a later call
			c.mu.Unlock()
			call.value, call.err = fn(ctx)
			c.turn.Unlock()
			close(call.done)
			return call.value, call.err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-call.done:
		}
		if call.err == nil || !errors.Is(call.err, context.Canceled) && !errors.Is(call.err, context.DeadlineExceeded) {
			return call.value, call.err
		}
	}
}
