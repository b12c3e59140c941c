package snapshot_test

import (
	"testing"

	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
)

// TestDue: an import of a large site wrote every node four times, and a member that was killed at rest had a
// quarter of the state to apply when it came back.
func TestDue(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		grown, newest int64
		rest, want    bool
	}{
		{31 * mib, 0, false, false},
		{32 * mib, 0, false, true},
		{32 * mib, 40 * mib, false, true},
		{40 * mib, 200 * mib, false, false},
		{100 * mib, 200 * mib, false, true},
		{7 * mib, 200 * mib, true, false},
		{8 * mib, 200 * mib, true, true},
		{0, 0, true, false},
	} {
		if got := (snapshot.Pace{Bytes: 32 * mib}).Due(c.grown, c.rest, func() int64 { return c.newest }); got != c.want {
			t.Errorf("%d MiB grown, the newest has %d MiB, at rest %v: %v", c.grown/mib, c.newest/mib, c.rest, got)
		}
	}
}

// TestBehind: 10,240 entries stay behind a snapshot, and in an import each has half a megabyte.
func TestBehind(t *testing.T) {
	p := snapshot.Pace{Bytes: 32 << 20, Entries: 10240}
	for _, c := range []struct {
		size    int64
		entries uint64
		want    uint64
	}{
		{0, 0, 10240},
		{100 << 10, 1000, 10240},     // ticks
		{320 << 20, 100_000, 10_000}, // 3 KiB each
		{80 << 20, 160, 64},          // an import
		{32 << 20, 1, 64},
	} {
		if got := p.Behind(c.size, c.entries); got != c.want {
			t.Errorf("%d entries of %d bytes in all: %d stay, not %d", c.entries, c.size, got, c.want)
		}
	}
}
