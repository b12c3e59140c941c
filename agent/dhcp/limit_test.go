package dhcp

import (
	"encoding/binary"
	"testing"
	"time"
)

// TestOneMadMachineStarvedTheRack: all machines shared one bound.
func TestOneMadMachineStarvedTheRack(t *testing.T) {
	l := newLimiter(DefaultRate, DefaultBurst, 0)
	mad, other := [6]byte{2, 1}, [6]byte{2, 2}
	for now := time.Duration(0); now < 10*time.Second; now += 100 * time.Microsecond { // ten times the common rate
		l.take(mad, now)
		if now%time.Second == 0 && !l.take(other, now) {
			t.Fatalf("at %v nothing is left for the others", now)
		}
	}
}

func TestManySourcesAreForgotten(t *testing.T) {
	l := newLimiter(DefaultRate, 2*maxSources, 0)
	source := func(n uint32) (mac [6]byte) {
		binary.BigEndian.PutUint32(mac[:], n)
		return mac
	}
	for n := range uint32(maxSources + 10) {
		if !l.take(source(n), 0) {
			t.Fatalf("source %d is refused", n)
		}
	}
	if len(l.sources) != maxSources {
		t.Errorf("%d sources are kept, want %d", len(l.sources), maxSources)
	}
	l.take(source(1<<30), time.Minute)
	if len(l.sources) != 1 {
		t.Errorf("%d sources are kept after all were quiet for long, want the new one", len(l.sources))
	}
}
