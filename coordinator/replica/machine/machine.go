package machine

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/ballot"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/upload"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// HashEvery is the number of log entries between comparisons of the members' states.
const HashEvery = 1000

// Options say whose log is applied, and who is told what.
type Options struct {
	Cluster string
	File    string // of the log, for messages
	Latch   *fatal.Latch
	GetLog  func(index uint64, l *raft.Log) error // reads the log

	// The functions are called by the goroutine that applies, and may not block. Applied comes after entries or a snapshot were
	// applied; Checked with the state before the first entry past each multiple of HashEvery; Roster after the roster of
	// certificates changed.
	Applied func()
	Checked func(ballot.Checkpoint)
	Roster  func()
}

// Machine applies entries to the state. raft calls what it implements from one goroutine; the other methods are safe for
// concurrent use. A view is made when somebody asks for one: where nobody reads, as on most followers, the trees need not be copied.
type Machine struct {
	o       Options
	failed  error        // of the last Restore
	paused  atomic.Int64 // nanoseconds for which the last snapshot kept the next entry waiting
	roster  uint64       // the one that was told of
	uploads upload.Receiver

	mu      sync.Mutex
	state   *apply.Applier
	applied uint64        // index of the newest entry applied here
	view    *state.View   // after that entry; nil until somebody asks
	moved   chan struct{} // closed and replaced when applied moves and somebody waits
	waiting bool
}

// New makes one with an empty state.
func New(o Options) *Machine {
	return &Machine{o: o, state: apply.New(), moved: make(chan struct{})}
}

// Apply implements raft.FSM.
func (m *Machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The answer to a command entry is []command.Result.
func (m *Machine) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	if m.o.Latch.Failed() != nil {
		return out
	}
	for i, l := range logs {
		if at := (l.Index - 1) / HashEvery * HashEvery; at > 0 && m.applied <= at { // the first entry past the multiple
			m.o.Checked(ballot.Checkpoint{Index: at, Hash: m.state.Hash()}) // only this goroutine changes applied and state
		}
		results, err := m.apply(l)
		if err != nil {
			_ = m.o.Latch.Fail(err) // Run returns it; nothing past this entry is applied, shown or written to a snapshot
			break
		}
		out[i] = results
	}
	m.tell()
	return out
}

// apply applies one entry. An entry that cannot be read changes nothing.
func (m *Machine) apply(l *raft.Log) (any, error) {
	if l.Type != raft.LogCommand {
		m.mu.Lock()
		m.applied = l.Index
		m.mu.Unlock()
		return nil, nil
	}
	results, err := m.applyEntry(l)
	if fault.Is(err, fault.Corrupt) {
		return nil, fatal.Corrupt(m.o.File, "entry %d: %w", l.Index, err)
	}
	if err != nil {
		return nil, fault.Wrap(fmt.Sprintf("apply entry %d", l.Index), err)
	}
	return results, nil
}

func (m *Machine) applyEntry(l *raft.Log) ([]command.Result, error) {
	holds, content, err := entry.Open(m.o.Cluster, l.Data)
	if err != nil {
		return nil, err
	}
	m.uploads.See(l)
	switch holds {
	case entry.Part:
		refusal, err := m.uploads.Part(l, content)
		if err != nil {
			return nil, err
		}
		m.place(m.state, l.Index) // only this goroutine changes it
		return []command.Result{{Err: refusal}}, nil
	case entry.Restore:
		result, err := m.restore(l, content)
		return []command.Result{result}, err
	}
	commands, err := command.Decode(content)
	if err != nil {
		return nil, err
	}
	results := make([]command.Result, len(commands))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = nil
	for i, c := range commands {
		results[i] = m.state.Apply(l.Index, c)
	}
	m.applied = l.Index
	return results, nil
}

// restore puts the uploaded state in place, under a generation above its own and that of the state it replaces. A refusal
// changes nothing; an error means that the log is damaged here.
func (m *Machine) restore(l *raft.Log, content []byte) (command.Result, error) {
	whole, refusal, err := m.uploads.Last(content)
	if err != nil {
		return command.Result{}, err
	}
	if refusal != nil {
		m.place(m.state, l.Index)
		return command.Result{Err: refusal}, nil
	}
	now, applied := m.Newest()
	archived, err := whole.State(m.o.Cluster, applied, m.o.GetLog)
	if err != nil {
		return command.Result{}, err
	}
	archived.KeepMembership(m.state.State)
	s := apply.On(archived)
	floor := max(now.Cluster().Generation, s.View().Cluster().Generation)
	for s.View().Cluster().Generation <= floor {
		whole.Raise.Header.Level = s.View().Cluster().Level
		if res := s.Apply(l.Index, whole.Raise); res.Err != nil { // no generation is left
			m.place(m.state, l.Index)
			return res, nil
		}
	}
	m.place(s, l.Index)
	return command.Result{}, nil
}

// place puts a state in place, as that after the entry.
func (m *Machine) place(s *apply.Applier, applied uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.applied, m.view = s, applied, nil
}

// tell wakes those who wait for applied to move.
func (m *Machine) tell() {
	m.mu.Lock()
	if m.waiting {
		close(m.moved)
		m.moved, m.waiting = make(chan struct{}), false
	}
	roster := m.state.Roster()
	m.mu.Unlock()
	if roster != m.roster { // raft calls from one goroutine
		m.roster = roster
		m.o.Roster()
	}
	m.o.Applied()
}

// Newest is the view after the newest applied entry, and that entry's index. It waits while an entry is applied.
func (m *Machine) Newest() (*state.View, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.view == nil {
		m.view = m.state.View()
	}
	return m.view, m.applied
}

// Index is that of the newest entry applied here.
func (m *Machine) Index() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

// Reached tells whether an index is applied; if not, wait is closed when applied moves.
func (m *Machine) Reached(index uint64) (ok bool, wait <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applied >= index {
		return true, nil
	}
	m.waiting = true
	return false, m.moved
}

// Snapshot implements raft.FSM: it keeps a view, which is a pointer. There is none while an archive's parts come in: they
// must stay in the log.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.o.Latch.Failed(); err != nil {
		return nil, err
	}
	if m.uploads.Open() {
		return nil, raft.ErrNothingNewToSnapshot // which raft passes over in silence, and looks again later
	}
	start := time.Now()
	v, applied := m.Newest()
	m.paused.Store(int64(time.Since(start)))
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
func (m *Machine) Restore(rc io.ReadCloser) error {
	s, applied, err := archive.ReadImage(rc)
	if err != nil {
		m.failed = err
		return err
	}
	if id := s.View().Cluster().ID; id != m.o.Cluster {
		m.failed = fault.New(fault.Corrupt, "restore snapshot", "it is of cluster %q, this is %q", id, m.o.Cluster)
		return m.failed
	}
	m.uploads.Reset() // snapshots are of moments without one
	m.place(apply.On(s), applied)
	m.tell()
	return nil
}

// Failed is why the last Restore failed: raft keeps that to itself when it starts.
func (m *Machine) Failed() error { return m.failed }

// Paused is for how long the last snapshot kept the next entry waiting.
func (m *Machine) Paused() time.Duration { return time.Duration(m.paused.Load()) }
