package retry

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDelayGrowsToItsBound(t *testing.T) {
	b := Backoff{Base: 100 * time.Millisecond, Max: time.Second}
	for failures, want := range map[int]time.Duration{0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 4: 800 * time.Millisecond, 5: time.Second, 90: time.Second} {
		for range 50 {
			if d := b.Delay(failures); d < want/2 || d > want {
				t.Fatalf("after %d failures: %v, want between %v and %v", failures, d, want/2, want)
			}
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := (Backoff{Base: time.Hour, Max: time.Hour}).Sleep(ctx, 1); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if err := (Backoff{}).Sleep(t.Context(), 1); err != nil {
			t.Errorf("got %v", err)
		}
	})
}
