package home

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/boltfile"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/logstore"
	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Place says which member lives where: in a directory, or in memory.
type Place struct {
	Cluster string // cluster id
	Member  string // the member's name, as in its certificate; never used for another machine
	Dir     string // data directory
	Memory  *Memory
}

// Validate fails with fault.Invalid unless the place is whole.
func (p Place) Validate() error {
	if p.Cluster == "" || p.Member == "" {
		return fault.New(fault.Invalid, "open replica", "cluster and member must be named")
	}
	if (p.Memory == nil) == (p.Dir == "") {
		return fault.New(fault.Invalid, "open replica", "one of a data directory and a memory store is needed")
	}
	return nil
}

// Home is what a member keeps, open. Close it.
type Home struct {
	Log       *logstore.Store
	Snapshots *snapshot.Watched
	file      *boltfile.File // nil in memory
}

// Create makes an empty home, and lets fill write what it begins with; fill may be nil. It is refused with fault.Exists when a
// member lives there.
func Create(p Place, fill func(*Home) error) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if p.Memory != nil {
		return p.createMemory(fill)
	}
	if err := p.clear(); err != nil {
		return err
	}
	file, err := boltfile.Create(p.logFile())
	if err != nil {
		return fault.New(fault.Internal, opCreate, "%w", err)
	}
	h, err := p.assemble(file, newLatch(), func(snapshot.Taken) {})
	if err == nil {
		err = begin(h, fill)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := boltfile.Check(p.logFile()); err != nil { // bbolt's first pages, read back before anything depends on them
		return err
	}
	return writeOwner(p.Dir, p.owner())
}

const opCreate = "create member"

// newLatch makes the latch of a home that is being made: who makes it is told of its errors.
func newLatch() *fatal.Latch { return fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}) }

// begin writes the first records.
func begin(h *Home, fill func(*Home) error) error {
	err := h.Log.Init()
	if err == nil && fill != nil {
		err = fill(h)
	}
	return err
}

func (p Place) createMemory(fill func(*Home) error) error {
	if p.Memory.made {
		return fault.New(fault.Exists, opCreate, "the memory holds a member already")
	}
	p.Memory.made = true
	h, err := p.assemble(nil, newLatch(), func(snapshot.Taken) {})
	if err != nil {
		return err
	}
	return begin(h, fill)
}

// clear makes the directory, without what an attempt left there that did not reach its end.
func (p Place) clear() error {
	if err := privateDir(p.Dir); err != nil {
		return err
	}
	if got, err := readOwner(p.Dir); err == nil {
		return fault.New(fault.Exists, opCreate, "%s holds member %s of cluster %s", p.Dir, got.Member, got.Cluster).
			WithHelp("start it with `farrier-coordinator run`; another cluster needs another data directory")
	} else if !fault.Is(err, fault.NotFound) {
		return err
	}
	for _, left := range []string{p.logFile(), p.snapshotDir()} {
		if err := os.RemoveAll(left); err != nil {
			return fmt.Errorf("%s: %w", opCreate, err)
		}
	}
	return nil
}

// Open verifies and opens a home. taken is told of each snapshot that is in place, as the log is.
func Open(p Place, l *fatal.Latch, taken func(snapshot.Taken)) (_ *Home, err error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	var file *boltfile.File
	if p.Memory != nil {
		if !p.Memory.made {
			return nil, nobody("memory")
		}
	} else if file, err = p.openFile(); err != nil {
		return nil, err
	}
	h, err := p.assemble(file, l, taken)
	if err == nil {
		err = h.verify()
	}
	if err != nil && file != nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// openFile opens the log of the member that the place is of.
func (p Place) openFile() (*boltfile.File, error) {
	got, err := readOwner(p.Dir)
	if err != nil {
		return nil, err
	}
	if want := p.owner(); got != want {
		return nil, fault.New(fault.Invalid, "open replica", "%s holds member %s of cluster %s, not %s of %s",
			p.Dir, got.Member, got.Cluster, want.Member, want.Cluster)
	}
	if err := privateDir(p.Dir); err != nil {
		return nil, err
	}
	return boltfile.Open(p.logFile())
}

// assemble puts the checks around what holds the bytes: the file, and the directory of snapshots, or the memory.
func (p Place) assemble(file *boltfile.File, l *fatal.Latch, taken func(snapshot.Taken)) (*Home, error) {
	o := logstore.Options{Cluster: p.Cluster, Member: p.Member, Latch: l}
	var snaps raft.SnapshotStore
	if m := p.Memory; m != nil {
		o.File, o.Logs, o.Stable, snaps = "memory", m.Logs, m.Stable, m.Snapshots
	} else {
		if err := privateDir(p.snapshotDir()); err != nil {
			return nil, err
		}
		s, err := snapshot.Open(p.snapshotDir(), l)
		if err != nil {
			return nil, err
		}
		o.File, o.Logs, o.Stable, snaps = p.logFile(), file, file, s
	}
	h := &Home{Log: logstore.New(o), file: file}
	h.Snapshots = snapshot.Watch(snaps, func(t snapshot.Taken) {
		h.Log.SnapshotTaken(t.Index)
		taken(t)
	})
	return h, nil
}

// verify verifies the log, from the newest snapshot on.
func (h *Home) verify() error {
	list, err := h.Snapshots.List()
	if err != nil {
		return err
	}
	var newest uint64
	if len(list) > 0 {
		newest = list[0].Index
	}
	return h.Log.Verify(newest)
}

// RaftRuns says that raft has started: see logstore and snapshot.
func (h *Home) RaftRuns() {
	h.Log.RaftRuns()
	h.Snapshots.RaftRuns()
}

// ReturnPages gives the memory back that the log's file takes, for when it is at rest.
func (h *Home) ReturnPages() {
	if h.file != nil {
		h.file.ReturnPages()
	}
}

// Close closes the files.
func (h *Home) Close() error {
	if h.file == nil {
		return nil
	}
	return h.file.Close()
}
