package fatal_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestTheFirstErrorStays: whoever fails later is told of the first, and the member is cut off once, before anybody is woken.
func TestTheFirstErrorStays(t *testing.T) {
	var l *fatal.Latch
	cut := 0
	l = fatal.NewLatch(slog.New(slog.DiscardHandler), func() {
		cut++
		select {
		case <-l.Fired():
			t.Error("somebody was woken before the member was cut off")
		default:
		}
	})
	if err := l.Failed(); err != nil {
		t.Fatalf("it begins with %v", err)
	}
	first := errors.New("no space left on device")
	for _, err := range []error{first, errors.New("another")} {
		var e *fatal.Error
		if got := l.Fail(err); !errors.As(got, &e) || e.ExitCode != fatal.ExitCode || !errors.Is(got, first) {
			t.Errorf("after %v: %v", err, got)
		}
	}
	<-l.Fired()
	if err := l.Failed(); !errors.Is(err, first) || cut != 1 {
		t.Errorf("latched %v, cut off %d times", err, cut)
	}
}

func TestCorruptSaysWhatToDo(t *testing.T) {
	err := fatal.Corrupt("/data/raft.db", "entry %d is missing", 7)
	if err.Kind != fault.Corrupt || !strings.Contains(err.Error(), "/data/raft.db: entry 7") || !strings.Contains(err.Help, "farrier-coordinator rejoin") {
		t.Errorf("%q, %q", err, err.Help)
	}
}
