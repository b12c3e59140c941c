package heap

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	look    = 10 * time.Second
	least   = 6 << 20 // bytes; less is not worth a collection
	rest    = 2       // looks without much work, before memory is given back: a process at work needs it again at once
	work    = 8 << 20 // bytes allocated in one look; a large heap may allocate a thirty-second part of itself
	lowGC   = 150     // percent; the lowest GOGC: what a large heap grows by at work is given back at rest
	loading = 300     // percent
	most    = 1000    // percent; the highest
)

// Loading sets what suits a process that reads what it will keep: the heap grows, and collections in between find little.
// Keep ends it.
func Loading() { debug.SetGCPercent(loading) }

// Keep tunes until ctx ends; run it once in a process. At rest it gives memory back to the system when what the heap keeps
// besides live objects is more than a quarter of them: after a load the collector would hold as much again as lives, for two
// minutes and longer. Giving back stops the process for as long as the kernel takes, and every page must be faulted in
// again: at work it is far dearer than the memory. A heap may grow by slack bytes before it is collected, if that is more
// than Go's own allowance: a collection every few megabytes is one every few milliseconds under load. What it may grow by
// follows each collection: a percentage that suits a small heap would let one that grows take many times what it needs, and
// memory that is touched for the first time is dearer than all that is done with it.
func Keep(ctx context.Context, slack uint64) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	collected, stop := collections()
	defer stop()
	h, now := read(), 0
	for resting := 0; ; {
		if p := percent(read().live, slack); p != now {
			debug.SetGCPercent(p)
			now = p
		}
		select {
		case <-ctx.Done():
			return nil
		case <-collected:
			continue
		case <-tick.C:
		}
		was := h
		h = read()
		if resting++; atWork(h.live, h.allocated-was.allocated) {
			resting = 0
		}
		if resting >= rest && worthReturning(h.live, h.held) {
			debug.FreeOSMemory()
			h = read()
		}
	}
}

// collections tells of each collection soon after it, until stop. Two in a row may be told of once.
func collections() (told <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	var over atomic.Bool
	var watch func()
	watch = func() { // something that nobody holds is cleaned up after the next collection
		runtime.AddCleanup(&[64]byte{}, func(struct{}) {
			if over.Load() {
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
			watch()
		}, struct{}{})
	}
	watch()
	return c, func() { over.Store(true) }
}

// state is what lived at the last collection, what the heap holds of the system's memory, and what was ever allocated,
// in bytes.
type state struct{ live, held, allocated uint64 }

func read() state {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return state{live: s[0].Value.Uint64(), allocated: s[1].Value.Uint64(), held: s[2].Value.Uint64() + s[3].Value.Uint64() + s[4].Value.Uint64()}
}

// atWork tells whether a process with so much live allocated more in one look than one at rest.
func atWork(live, allocated uint64) bool { return allocated > max(work, live/32) }

func worthReturning(live, held uint64) bool {
	return held > live+max(live/4, least)
}

// percent is the GOGC for a heap: by how much of live it may grow.
func percent(live, slack uint64) int {
	return int(min(max(lowGC, slack*100/max(live, 1)), most))
}
