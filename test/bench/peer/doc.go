// Package peer runs what Farrier is set beside on the same machine: etcd and PostgreSQL, as processes of their own with their
// defaults.
package peer

// GC is the GOGC of what makes the load, ours and the peer's: with its small heap it would collect all the time.
const GC = 400

// Pairs is what a load came to: lock pairs, calls, or records.
type Pairs struct {
	PerSecond float64 `json:"per_second"`
	Count     float64 `json:"pairs"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	CPU       float64 `json:"-"` // microseconds for each, servers and client
}
