package replica

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/pkg/fault"
)

func checkAdvice(t *testing.T, err error, path string) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Corrupt {
		t.Fatalf("refused with %v (%v)", fault.KindOf(err), err)
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(e.Help, "farrier-coordinator rejoin") {
		t.Fatalf("no file or no advice in %q, %q", err, e.Help)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// failing fails from a given call on.
type failing struct {
	raft.LogStore
	raft.StableStore
	mu  sync.Mutex
	err error
}

func (f *failing) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

func (f *failing) StoreLogs(l []*raft.Log) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return f.LogStore.StoreLogs(l)
}
