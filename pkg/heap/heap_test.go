package heap

import "testing"

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

func TestPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: most, 4 * mib: most, 8 * mib: 600, 24 * mib: 200, 48 * mib: 150, 400 * mib: 150} {
		if got := percent(live, 48*mib); got != want {
			t.Errorf("%d MiB live: GOGC %d, want %d", live/mib, got, want)
		}
	}
}
