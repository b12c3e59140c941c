package replica

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/ballot"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/upload"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// fsm applies entries to the state. raft calls it from one goroutine; the fields under mu are used by others. A view is
// made when somebody asks for one: where nobody reads, as on most followers, the trees need not be copied.
type fsm struct {
	cluster string
	latch   *fatal.Latch
	failed  error  // of the last Restore: raft keeps it to itself when it starts
	file    string // of the log, for messages
	settled func() // told after each batch
	checked func(ballot.Checkpoint)
	paused  atomic.Int64                          // nanoseconds for which the last snapshot kept the next entry waiting
	getLog  func(index uint64, l *raft.Log) error // reads the log
	revoked func()                                // told after the roster of certificates changed
	roster  uint64                                // the one that was told of
	uploads upload.Receiver

	mu      sync.Mutex
	state   *state.State
	applied uint64        // index of the newest entry applied here
	view    *state.View   // after that entry; nil until somebody asks
	moved   chan struct{} // closed and replaced when applied moves and somebody waits
	waiting bool
}

func newFSM(cluster, file string, l *fatal.Latch) *fsm {
	f := &fsm{cluster: cluster, latch: l, state: state.New(), file: file, settled: func() {}, checked: func(ballot.Checkpoint) {}, revoked: func() {}, moved: make(chan struct{})}
	return f
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The answer to a command entry is []command.Result.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	if f.latch.Failed() != nil {
		return out
	}
	for i, l := range logs {
		if at := (l.Index - 1) / HashEvery * HashEvery; at > 0 && f.applied <= at { // the first entry past the multiple
			f.checked(ballot.Checkpoint{Index: at, Hash: f.state.Hash()}) // only this goroutine changes applied and state
		}
		results, err := f.apply(l)
		if err != nil {
			_ = f.latch.Fail(err) // Run returns it; nothing past this entry is applied, shown or written to a snapshot
			break
		}
		out[i] = results
	}
	f.tell()
	return out
}

// apply applies one entry. An entry that cannot be read changes nothing.
func (f *fsm) apply(l *raft.Log) (any, error) {
	if l.Type != raft.LogCommand {
		f.mu.Lock()
		f.applied = l.Index
		f.mu.Unlock()
		return nil, nil
	}
	results, err := f.applyEntry(l)
	if fault.Is(err, fault.Corrupt) {
		return nil, fatal.Corrupt(f.file, "entry %d: %w", l.Index, err)
	}
	if err != nil {
		return nil, fault.Wrap(fmt.Sprintf("apply entry %d", l.Index), err)
	}
	return results, nil
}

func (f *fsm) applyEntry(l *raft.Log) ([]command.Result, error) {
	holds, content, err := entry.Open(f.cluster, l.Data)
	if err != nil {
		return nil, err
	}
	f.uploads.See(l)
	switch holds {
	case entry.Part:
		refusal, err := f.uploads.Part(l, content)
		if err != nil {
			return nil, err
		}
		f.place(f.state, l.Index) // only this goroutine changes it
		return []command.Result{{Err: refusal}}, nil
	case entry.Restore:
		result, err := f.restore(l, content)
		return []command.Result{result}, err
	}
	commands, err := command.Decode(content)
	if err != nil {
		return nil, err
	}
	results := make([]command.Result, len(commands))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = nil
	for i, c := range commands {
		results[i] = f.state.Apply(l.Index, c)
	}
	f.applied = l.Index
	return results, nil
}

// restore puts the uploaded state in place, under a generation above its own and that of the state it replaces. A refusal
// changes nothing; an error means that the log is damaged here.
func (f *fsm) restore(l *raft.Log, content []byte) (command.Result, error) {
	whole, refusal, err := f.uploads.Last(content)
	if err != nil {
		return command.Result{}, err
	}
	if refusal != nil {
		f.place(f.state, l.Index)
		return command.Result{Err: refusal}, nil
	}
	now, applied := f.newest()
	s, err := whole.State(f.cluster, applied, f.getLog)
	if err != nil {
		return command.Result{}, err
	}
	s.KeepMembership(f.state)
	floor := max(now.Cluster().Generation, s.View().Cluster().Generation)
	for s.View().Cluster().Generation <= floor {
		whole.Raise.Header.Level = s.View().Cluster().Level
		if res := s.Apply(l.Index, whole.Raise); res.Err != nil { // no generation is left
			f.place(f.state, l.Index)
			return res, nil
		}
	}
	f.place(s, l.Index)
	return command.Result{}, nil
}

// place puts a state in place, as that after the entry.
func (f *fsm) place(s *state.State, applied uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.applied, f.view = s, applied, nil
}

// publish puts a whole state in place, and tells.
func (f *fsm) publish(s *state.State, applied uint64) {
	f.place(s, applied)
	f.tell()
}

// tell wakes those who wait for applied to move.
func (f *fsm) tell() {
	f.mu.Lock()
	if f.waiting {
		close(f.moved)
		f.moved, f.waiting = make(chan struct{}), false
	}
	roster := f.state.Roster()
	f.mu.Unlock()
	if roster != f.roster { // raft calls from one goroutine
		f.roster = roster
		f.revoked()
	}
	f.settled()
}

// newest is the view after the newest applied entry, and that entry's index. It waits while an entry is applied.
func (f *fsm) newest() (*state.View, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.view == nil {
		f.view = f.state.View()
	}
	return f.view, f.applied
}

// index is that of the newest entry applied here.
func (f *fsm) index() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
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

// Snapshot implements raft.FSM: it keeps a view, which is a pointer. There is none while an archive's parts come in: they
// must stay in the log.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.latch.Failed(); err != nil {
		return nil, err
	}
	if f.uploads.Open() {
		return nil, raft.ErrNothingNewToSnapshot // which raft passes over in silence, and looks again later
	}
	start := time.Now()
	v, applied := f.newest()
	f.paused.Store(int64(time.Since(start)))
	return frozen{archive.Image{View: v, Applied: applied}}, nil
}

// frozen is a state to be written.
type frozen struct{ archive.Image }

// Persist implements raft.FSMSnapshot.
func (z frozen) Persist(sink raft.SnapshotSink) error {
	if err := z.Write(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (frozen) Release() {}

// Restore implements raft.FSM. The old state stays until the new one is whole.
func (f *fsm) Restore(rc io.ReadCloser) error {
	s, applied, err := archive.ReadImage(rc)
	if err != nil {
		f.failed = err
		return err
	}
	if id := s.View().Cluster().ID; id != f.cluster {
		f.failed = fault.New(fault.Corrupt, "restore snapshot", "it is of cluster %q, this is %q", id, f.cluster)
		return f.failed
	}
	f.uploads.Reset() // snapshots are of moments without one
	f.publish(s, applied)
	return nil
}
