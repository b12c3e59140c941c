package redfish

import (
	"net/http"
	"time"
)

// Faults says how the BMC misbehaves. The zero Faults behaves. Counters count down to zero.
type Faults struct {
	Delay        time.Duration   // before every answer
	Hang         bool            // no answer until the client leaves
	HoldChanges  <-chan struct{} // changing requests wait for it, before their session is looked at
	Held         chan<- struct{} // is told of each request that begins to wait for HoldChanges
	PowerDelay   time.Duration   // between a power request and its effect: PoweringOn, PoweringOff meanwhile
	FailChanges  int             // changing requests that get 500 without effect
	FailAfter    int             // changing requests that get 500 after their effect
	Busy         int             // requests that get 503 with Retry-After: 0
	Unauthorized bool            // every request gets 401
	Stuck        bool            // power requests are accepted and do nothing
	BootMode500  bool            // a PATCH that names a boot mode gets 500
	NoSessions   bool            // SessionService answers 404: basic only
	OnceStays    bool            // a 'Once' override is not one-shot
	Garbage      bool            // reads answer with something that is not JSON
	Huge         bool            // reads answer with 9 MiB
	RedirectTo   string          // every read is redirected there
}

// SetFaults replaces the faults.
func (b *BMC) SetFaults(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = f
}

func (b *BMC) fault() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

// take uses up one of a counting fault.
func (b *BMC) take(counter func(f *Faults) *int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := counter(&b.faults)
	if *n == 0 {
		return false
	}
	*n--
	return true
}

// misbehave carries out the faults that come before a request is looked at; it tells whether it answered.
func (b *BMC) misbehave(w http.ResponseWriter, r *http.Request) bool {
	f := b.fault()
	if f.Hang {
		b.wait(r, nil, 0)
		return true
	}
	if f.Delay > 0 && !b.wait(r, nil, f.Delay) {
		return true
	}
	if f.HoldChanges != nil && r.Method != http.MethodGet {
		if f.Held != nil {
			f.Held <- struct{}{}
		}
		if !b.wait(r, f.HoldChanges, 0) {
			return true
		}
	}
	if b.take(func(f *Faults) *int { return &f.Busy }) {
		w.Header().Set("Retry-After", "0")
		fail(w, http.StatusServiceUnavailable, "ServiceTemporarilyUnavailable")
		return true
	}
	if f.Unauthorized {
		fail(w, http.StatusUnauthorized, "NoValidSession")
		return true
	}
	if r.Method != http.MethodGet {
		return false
	}
	switch {
	case f.Garbage:
		_, _ = w.Write([]byte("<html>it works!</html>"))
	case f.Huge:
		_, _ = w.Write([]byte(`{"Name":"`))
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = 'x'
		}
		for range 9 {
			_, _ = w.Write(block)
		}
		_, _ = w.Write([]byte(`"}`))
	case f.RedirectTo != "":
		http.Redirect(w, r, f.RedirectTo+r.URL.Path, http.StatusTemporaryRedirect)
	default:
		return false
	}
	return true
}

// wait pauses until release, d (if not 0), the client or the BMC is gone; false for the last two.
func (b *BMC) wait(r *http.Request, release <-chan struct{}, d time.Duration) bool {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-r.Context().Done():
		return release != nil // what was held is carried out even if its client has gone: it is on the wire
	case <-b.stopping:
		return false
	case <-release:
		return true
	case <-after:
		return true
	}
}
