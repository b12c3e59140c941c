package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// fsm applies entries to the state. raft calls it from one goroutine; the fields under mu are read by others.
type fsm struct {
	cluster string
	latch   *latch
	state   *state.State
	failed  error  // of the last Restore: raft keeps it to itself when it starts
	file    string // of the log, for messages
	settled func() // told after each batch
	checked func(checkpoint)

	mu      sync.Mutex
	applied uint64 // index of the newest entry applied here
	view    *state.View
	moved   chan struct{} // closed and replaced when applied moves and somebody waits
	waiting bool
}

func newFSM(cluster, file string, l *latch) *fsm {
	f := &fsm{cluster: cluster, latch: l, state: state.New(), file: file, settled: func() {}, checked: func(checkpoint) {}, moved: make(chan struct{})}
	f.view = f.state.View()
	return f
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The answer to a command entry is []command.Result.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	if f.latch.failed() != nil {
		return out
	}
	last := f.applied // only this goroutine writes it
	for i, l := range logs {
		if at := (l.Index - 1) / HashEvery * HashEvery; at > 0 && last <= at { // the first entry past the multiple
			f.checked(checkpoint{index: at, hash: f.state.Hash()})
		}
		if l.Type == raft.LogCommand {
			results, err := f.apply(l)
			if err != nil {
				_ = f.latch.fail(err) // Run returns it; nothing past this entry is applied, shown or written to a snapshot
				return out
			}
			out[i] = results
		}
		last = l.Index
	}
	f.publish(last)
	return out
}

func (f *fsm) apply(l *raft.Log) ([]command.Result, error) {
	commands, err := openEntry(f.cluster, l.Data)
	if fault.Is(err, fault.Corrupt) {
		return nil, corrupt(f.file, "entry %d: %w", l.Index, err)
	}
	if err != nil {
		return nil, fault.Wrap(fmt.Sprintf("apply entry %d", l.Index), err)
	}
	results := make([]command.Result, len(commands))
	for i, c := range commands {
		results[i], _ = f.state.Apply(l.Index, c)
	}
	return results, nil
}

func (f *fsm) publish(applied uint64) {
	v := f.state.View()
	f.mu.Lock()
	f.applied, f.view = applied, v
	if f.waiting {
		close(f.moved)
		f.moved, f.waiting = make(chan struct{}), false
	}
	f.mu.Unlock()
	f.settled()
}

// newest is the view after the newest applied entry, and that entry's index.
func (f *fsm) newest() (*state.View, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view, f.applied
}

// reached tells whether an index is applied; if not, wait is closed when applied moves.
func (f *fsm) reached(index uint64) (ok bool, wait <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.applied >= index {
		return true, nil
	}
	f.waiting = true
	return false, f.moved
}

// snapHeader leads a snapshot's data: the index applied and the hash of the state.
const snapHeader = 8 + 16

// Snapshot implements raft.FSM: it keeps a view, which is a pointer.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.latch.failed(); err != nil {
		return nil, err
	}
	v, applied := f.newest()
	return frozen{view: v, applied: applied}, nil
}

// frozen is a state to be written.
type frozen struct {
	view    *state.View
	applied uint64
}

// Persist implements raft.FSMSnapshot.
func (z frozen) Persist(sink raft.SnapshotSink) error {
	if err := z.write(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

func (z frozen) write(w io.Writer) error {
	h := z.view.Hash()
	if _, err := w.Write(append(binary.BigEndian.AppendUint64(nil, z.applied), h[:]...)); err != nil {
		return err
	}
	return z.view.WriteSnapshot(w)
}

// Release implements raft.FSMSnapshot.
func (frozen) Release() {}

// thaw reads what frozen.write wrote. Errors are fault.Corrupt.
func thaw(r io.Reader) (*state.State, uint64, error) {
	var head [snapHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, fault.New(fault.Corrupt, "read snapshot", "%w", err)
	}
	s, err := state.ReadSnapshot(r)
	if err != nil {
		return nil, 0, err
	}
	if h := s.Hash(); !bytes.Equal(h[:], head[8:]) {
		return nil, 0, fault.New(fault.Corrupt, "read snapshot", "its state has hash %x, it was written with %x", h, head[8:])
	}
	return s, binary.BigEndian.Uint64(head[:]), nil
}

// Restore implements raft.FSM. The old state stays until the new one is whole.
func (f *fsm) Restore(rc io.ReadCloser) error {
	s, applied, err := thaw(rc)
	if err != nil {
		f.failed = err
		return err
	}
	if id := s.View().Cluster().ID; id != f.cluster {
		f.failed = fault.New(fault.Corrupt, "restore snapshot", "it is of cluster %q, this is %q", id, f.cluster)
		return f.failed
	}
	f.state = s
	f.publish(applied)
	return nil
}
