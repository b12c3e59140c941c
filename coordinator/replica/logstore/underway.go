package logstore

import "sync"

// underway numbers the calls that have begun and not ended. It is safe for concurrent use.
type underway struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]bool
}

// begin begins a call; the answered function ends it.
func (u *underway) begin() (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open == nil {
		u.open = map[uint64]bool{}
	}
	u.last++
	n := u.last
	u.open[n] = true
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.open, n)
	}
}

// oldest is the call that began first; 0 when there is none.
func (u *underway) oldest() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	var first uint64
	for n := range u.open {
		if first == 0 || n < first {
			first = n
		}
	}
	return first
}
