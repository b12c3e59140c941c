package server

import "testing"

func TestWorthTrimming(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, held uint64
		want       bool
	}{
		{4 * mib, 12 * mib, false}, // little in all
		{4 * mib, 24 * mib, true},
		{200 * mib, 290 * mib, false},
		{200 * mib, 310 * mib, true},
		{200 * mib, 100 * mib, false}, // much has died since
	} {
		if got := worthTrimming(c.live, c.held); got != c.want {
			t.Errorf("%d of %d MiB live: %v", c.live/mib, c.held/mib, got)
		}
	}
	if live, held := heap(); held == 0 || live > held*2 {
		t.Errorf("the runtime says %d live, %d held", live, held)
	}
}
