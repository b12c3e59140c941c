package snapshot

// Pace weighs what a snapshot costs now against what a start without it would cost.
type Pace struct {
	Bytes   int64  // by how much the log grows before a snapshot is worth it
	Entries uint64 // that stay behind one for members that come back; fewer if they have more than Bytes
}

// least is how many entries stay behind a snapshot at least.
const least = 64

// Due tells whether a log that has grown so much is worth a snapshot. Under load it must be worth half of the newest one, of that
// many bytes; at rest it is nearly free, and the next start has little to apply.
func (p Pace) Due(grown int64, rest bool, newest func() int64) bool {
	if rest {
		return grown >= p.Bytes/4
	}
	return grown >= p.Bytes && grown >= newest()/2
}

// Behind is how many of entries that have so many bytes are as large as the growth that leads to a snapshot.
func (p Pace) Behind(size int64, entries uint64) uint64 {
	if size <= 0 {
		return p.Entries
	}
	fit := uint64(float64(entries) / float64(size) * float64(p.Bytes))
	return min(max(fit, least), p.Entries)
}
