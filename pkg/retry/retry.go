// Package retry spaces repeated tries: exponential back-off with full jitter, so that many callers that failed together
// do not come back together.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a policy. The zero Backoff waits 50 ms after the first failure and at most 2 s.
type Backoff struct {
	Base time.Duration // default 50 ms
	Max  time.Duration // default 2 s
}

// Delay is how long to wait after the given number of failures (1 for the first): a random time between half of and
// the whole of Base × 2^(failures−1), at most Max.
func (b Backoff) Delay(failures int) time.Duration {
	base, top := b.Base, b.Max
	if base <= 0 {
		base = 50 * time.Millisecond
	}
	if top <= 0 {
		top = 2 * time.Second
	}
	d := top
	if shift := max(failures-1, 0); shift < 20 && base<<shift < top {
		d = base << shift
	}
	return d/2 + rand.N(d/2+1)
}

// Sleep waits for Delay, or until ctx ends and then returns its error.
func (b Backoff) Sleep(ctx context.Context, failures int) error {
	t := time.NewTimer(b.Delay(failures))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
