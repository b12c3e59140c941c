package heap

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

const mib = 1 << 20

func TestWorthReturning(t *testing.T) {
	for _, c := range []struct {
		live, held uint64
		want       bool
	}{
		{4 * mib, 9 * mib, false}, // little in all
		{4 * mib, 12 * mib, true},
		{200 * mib, 240 * mib, false},
		{200 * mib, 260 * mib, true},
		{200 * mib, 100 * mib, false}, // much has died since
	} {
		if got := worthReturning(c.live, c.held); got != c.want {
			t.Errorf("%d of %d MiB live: %v", c.live/mib, c.held/mib, got)
		}
	}
	if h := read(); h.held == 0 || h.live > h.held*2 {
		t.Errorf("the runtime says %d live, %d held", h.live, h.held)
	}
}

// TestALargeHeapUnderLoadGaveItsMemoryBack: few collections were taken for rest, and a coordinator with 400 MiB that took an
// import collects once in ten seconds.
func TestALargeHeapUnderLoadGaveItsMemoryBack(t *testing.T) {
	for _, c := range []struct {
		live, allocated uint64
		want            bool
	}{
		{400 * mib, 600 * mib, true},
		{400 * mib, 20 * mib, true},
		{400 * mib, 10 * mib, false}, // 100,000 nodes' heartbeats
		{4 * mib, 10 * mib, true},
		{4 * mib, 2 * mib, false},
	} {
		if got := atWork(c.live, c.allocated); got != c.want {
			t.Errorf("%d MiB allocated, %d MiB live: %v", c.allocated/mib, c.live/mib, got)
		}
	}
	if a, b := read().allocated, read().allocated; a == 0 || b < a {
		t.Errorf("the runtime allocated %d, then %d bytes", a, b)
	}
}

func TestPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: most, 4 * mib: most, 8 * mib: 600, 24 * mib: 200, 48 * mib: 150, 400 * mib: 150} {
		if got := percent(live, 48*mib); got != want {
			t.Errorf("%d MiB live: GOGC %d, want %d", live/mib, got, want)
		}
	}
}

// TestAHeapThatGrewKeptTheAllowanceOfASmallOne: what a heap may grow by was looked at every ten seconds, and a coordinator
// that took an import in its first ten took ten times what it needed.
func TestAHeapThatGrewKeptTheAllowanceOfASmallOne(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Keep(ctx, 64*mib) }()
	collectUntil(t, func(percent int) bool { return percent > 2*lowGC })
	large := make([]byte, 100*mib)
	collectUntil(t, func(percent int) bool { return percent == lowGC })
	runtime.KeepAlive(large)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// collectUntil runs collections until GOGC is as it should be.
func collectUntil(t *testing.T, ok func(percent int) bool) {
	t.Helper()
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	for range 100_000 {
		runtime.GC()
		if metrics.Read(s); ok(int(s[0].Value.Uint64())) {
			return
		}
	}
	t.Fatalf("GOGC stays %d", s[0].Value.Uint64())
}
