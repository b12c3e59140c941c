// Package clock is the one door through which shells read time. Pure rooms take time as an argument instead.
// Timers come from the time package, so that tests may run in testing/synctest; only the two readings that
// matter for leases go through Clock.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock reads time. It is safe for concurrent use.
type Clock interface {
	// Now is the wall clock: for people, never compared.
	Now() time.Time
	// Boottime is CLOCK_BOOTTIME, which counts suspend: for leases and deadlines.
	Boottime() time.Duration
}

// System is the machine's clock.
type System struct{}

// Now implements Clock.
func (System) Now() time.Time { return time.Now() }

// Boottime implements Clock.
func (System) Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: CLOCK_BOOTTIME is not available: " + err.Error()) // Linux since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Monotonic is a Clock on the time package's monotonic reading, which testing/synctest moves.
type Monotonic struct{ start time.Time }

// NewMonotonic starts a Monotonic at zero.
func NewMonotonic() *Monotonic { return &Monotonic{start: time.Now()} }

// Now implements Clock.
func (m *Monotonic) Now() time.Time { return time.Now() }

// Boottime implements Clock.
func (m *Monotonic) Boottime() time.Duration { return time.Since(m.start) }
