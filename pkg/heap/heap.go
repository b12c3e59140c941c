package heap

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	look    = 10 * time.Second
	least   = 6 << 20 // bytes; less is not worth a collection
	rest    = 3       // collections in one look: with more the process is at work, and needs its memory again at once
	lowGC   = 150     // percent; the lowest GOGC: what a large heap grows by at work is given back at rest
	loading = 300     // percent
	most    = 1000    // percent; the highest
)

// Loading sets what suits a process that reads what it will keep: the heap grows, and collections in between find little.
// Keep ends it.
func Loading() { debug.SetGCPercent(loading) }

// Keep tunes until ctx ends; run it once in a process. It gives memory back to the system when what the heap keeps
// besides live objects is more than a quarter of them: after a load the collector would hold as much again as lives, for two
// minutes and longer. A heap may grow by slack bytes before it is collected, if that is more than Go's own allowance: a
// collection every few megabytes is one every few milliseconds under load.
func Keep(ctx context.Context, slack uint64) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	h := read()
	for {
		debug.SetGCPercent(percent(h.live, slack))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		was := h.cycles
		if h = read(); h.cycles-was <= rest && worthReturning(h.live, h.held) {
			debug.FreeOSMemory()
			h.cycles++
		}
	}
}

// state is what lived at the last collection, what the heap holds of the system's memory, and how many collections
// there were.
type state struct{ live, held, cycles uint64 }

func read() state {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return state{live: s[0].Value.Uint64(), cycles: s[1].Value.Uint64(), held: s[2].Value.Uint64() + s[3].Value.Uint64() + s[4].Value.Uint64()}
}

func worthReturning(live, held uint64) bool {
	return held > live+max(live/4, least)
}

// percent is the GOGC for a heap: by how much of live it may grow.
func percent(live, slack uint64) int {
	return int(min(max(lowGC, slack*100/max(live, 1)), most))
}
