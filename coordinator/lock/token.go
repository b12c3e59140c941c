package lock

import "fmt"

// Token fences effects: it rises with each grant and is never reused. The cluster's generation is in the high
// 16 bits; below it is a replicated counter.
type Token uint64

// MakeToken joins a generation and a counter. It panics when the counter leaves its 48 bits, which 2^48 grants
// would take.
func MakeToken(generation uint16, counter uint64) Token {
	if counter>>48 != 0 {
		panic("lock: token counter exhausted")
	}
	return Token(uint64(generation)<<48 | counter)
}

// Generation is the cluster's generation when the token was granted.
func (t Token) Generation() uint16 { return uint16(t >> 48) }

// Counter is the replicated counter's value at the grant.
func (t Token) Counter() uint64 { return uint64(t) & (1<<48 - 1) }

// String is generation.counter, as people see it.
func (t Token) String() string { return fmt.Sprintf("%d.%d", t.Generation(), t.Counter()) }
