package dhcp

import "time"

// The bounds of one MAC. A machine that boots sends about ten packets, and repeats each once a second at most.
const (
	sourceRate  = 10
	sourceBurst = 40
	maxSources  = 1 << 14 // that have sent of late; with more, those that are new have the common bound only
)

// chaddr is where a packet has the machine's MAC.
const chaddr = 28

func (s *Server) allow(packet []byte, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit.take([6]byte(packet[chaddr:]), now)
}

// limiter bounds the packets of each MAC, and of all together.
type limiter struct {
	all     bucket
	sources map[[6]byte]*bucket
	swept   time.Duration // when sources was last rid of what has been quiet
}

func newLimiter(rate, burst int, now time.Duration) limiter {
	return limiter{all: newBucket(rate, burst, now), sources: make(map[[6]byte]*bucket), swept: now}
}

// take tells whether a packet may be answered. What its MAC may not send costs the others nothing.
func (l *limiter) take(mac [6]byte, now time.Duration) bool {
	b := l.sources[mac]
	if b == nil {
		b = l.add(mac, now)
	}
	return (b == nil || b.take(now)) && l.all.take(now)
}

// add is nil if there are too many sources.
func (l *limiter) add(mac [6]byte, now time.Duration) *bucket {
	if len(l.sources) >= maxSources && now-l.swept >= time.Second {
		l.swept = now
		for m, b := range l.sources {
			if b.fill(now); b.full() {
				delete(l.sources, m)
			}
		}
	}
	if len(l.sources) >= maxSources {
		return nil
	}
	b := newBucket(sourceRate, sourceBurst, now)
	l.sources[mac] = &b
	return &b
}

// bucket is a token bucket in billionths of a packet.
type bucket struct {
	rate, burst, tokens int64
	last                time.Duration
}

const nano = int64(time.Second)

func newBucket(rate, burst int, now time.Duration) bucket {
	return bucket{rate: int64(rate), burst: int64(burst), tokens: int64(burst) * nano, last: now}
}

func (b *bucket) fill(now time.Duration) {
	if d := min(now-b.last, time.Minute); d > 0 {
		b.tokens = min(b.tokens+int64(d)*b.rate, b.burst*nano)
		b.last = now
	}
}

func (b *bucket) full() bool { return b.tokens == b.burst*nano }

func (b *bucket) take(now time.Duration) bool {
	b.fill(now)
	if b.tokens < nano {
		return false
	}
	b.tokens -= nano
	return true
}
