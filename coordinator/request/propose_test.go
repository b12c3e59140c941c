package request

import (
	"testing"
	"time"
)

// TestADeadlineHidWhoHeldTheLock: a wait that is longer than its caller's patience ends a little before it.
func TestADeadlineHidWhoHeldTheLock(t *testing.T) {
	for _, c := range []struct{ wait, left, want time.Duration }{
		{3 * time.Second, time.Minute, 3 * time.Second},
		{-1, time.Minute, time.Minute - answerMargin},
		{time.Hour, 10 * time.Second, 10*time.Second - answerMargin},
		{time.Hour, time.Second, 750 * time.Millisecond},
		{0, time.Second, 0},
		{-1, -time.Second, 0},
	} {
		if got := waitWithin(c.wait, c.left); got != c.want {
			t.Errorf("%v with %v left: %v instead of %v", c.wait, c.left, got, c.want)
		}
	}
}
