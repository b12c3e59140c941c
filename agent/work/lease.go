package work

import "time"

// maxRenewals bounds the renewals in flight that are remembered. At one each 500 ms that is 32 s.
const maxRenewals = 64

// Margin is what the holder takes off the TTL: 10 % for the rates of two clocks, 100 ms for everything else.
func Margin(ttl time.Duration) time.Duration { return ttl/10 + 100*time.Millisecond }

// lease is the session as the holder counts it.
type lease struct {
	session string
	ttl     time.Duration
	greeted time.Duration // when hello was sent
	until   time.Duration // effects may start before this
	sent    []renewal     // oldest first
}

type renewal struct {
	seq uint64
	at  time.Duration
}

func (l *lease) open(session string, ttl time.Duration) {
	l.session, l.ttl = session, ttl
	l.extend(l.greeted)
}

// extend counts from at, a moment before the coordinator can have begun to count.
func (l *lease) extend(at time.Duration) {
	l.until = max(l.until, at+l.ttl-Margin(l.ttl))
}

func (l *lease) renewing(seq uint64, now time.Duration) {
	if len(l.sent) == maxRenewals {
		l.sent = append(l.sent[:0], l.sent[1:]...)
	}
	l.sent = append(l.sent, renewal{seq, now})
}

func (l *lease) renewed(seq uint64) {
	for len(l.sent) > 0 && l.sent[0].seq <= seq {
		l.extend(l.sent[0].at)
		l.sent = l.sent[1:]
	}
}

func (l *lease) close() { *l = lease{greeted: l.greeted} }
