package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Of memory that is not needed.
const (
	trimLook  = 10 * time.Second
	trimLeast = 16 << 20 // bytes; less is not worth a collection
)

// trim gives memory back to the system when what the heap keeps besides live objects is more than half of them: after a
// load the collector would hold as much again as lives, for two minutes and longer, and most of a coordinator's
// objects live for ever.
func trim(ctx context.Context) error {
	tick := time.NewTicker(trimLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if live, held := heap(); worthTrimming(live, held) {
				debug.FreeOSMemory()
			}
		}
	}
}

// heap is what lived at the last collection, and what the heap holds of the system's memory.
func heap() (live, held uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64() + s[2].Value.Uint64() + s[3].Value.Uint64()
}

func worthTrimming(live, held uint64) bool {
	return held > live+max(live/2, trimLeast)
}
