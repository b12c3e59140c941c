package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
)

// A snapshot is one file: the data, then its description as JSON, then a fixed end with the length and the hashes.
// It is written beside its place, synced, renamed, and the directory is synced, so a file with the right name is whole
// unless the disk damaged it.
const (
	snapSuffix = ".snap"
	snapRetain = 2
	snapMagic  = "farrier snapshot 1\n"
	snapEnd    = 8 + 8 + 8 + len(snapMagic) // length of the description, hash of the data, hash of the description
)

// snapshots is a raft.SnapshotStore in a directory. List answers the newest only: when it is damaged, an older one is
// no replacement, because the log behind it may be gone and the member would come back with a hole.
type snapshots struct {
	dir    string
	latch  *fatal.Latch
	mu     sync.Mutex
	opened int // temporary files made by this process: makes their names unique
}

func openSnapshots(dir string, l *fatal.Latch) (*snapshots, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	s := &snapshots{dir: dir, latch: l}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read snapshots: %w", err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".tmp") { // of a process that ended while writing
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
			}
		}
	}
	return s, nil
}

// names lists the snapshots, newest first.
func (s *snapshots) names() ([]string, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		if strings.HasSuffix(f.Name(), snapSuffix) {
			out = append(out, strings.TrimSuffix(f.Name(), snapSuffix))
		}
	}
	slices.Sort(out) // the names are of fixed width: term, index
	slices.Reverse(out)
	return out, nil
}

// List implements raft.SnapshotStore: the newest snapshot, verified as far as its description.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	f, meta, _, err := s.read(names[0])
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{meta}, f.Close()
}

// Open implements raft.SnapshotStore. The data is verified before the first byte is handed out.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f, meta, want, err := s.read(id)
	if err != nil {
		return nil, nil, err
	}
	d := xxhash.New()
	if _, err := io.Copy(d, io.NewSectionReader(f, 0, meta.Size)); err != nil || d.Sum64() != want {
		f.Close()
		return nil, nil, fatal.Corrupt(s.path(id), "the data of the snapshot at index %d does not match its hash", meta.Index)
	}
	data := io.NewSectionReader(f, 0, meta.Size)
	return meta, snapReader{bufio.NewReaderSize(data, 256<<10), f}, nil
}

type snapReader struct {
	io.Reader
	io.Closer
}

func (s *snapshots) path(id string) string { return filepath.Join(s.dir, id+snapSuffix) }

// read opens a snapshot and verifies its description; the answered hash is that of its data.
func (s *snapshots) read(id string) (_ *os.File, _ *raft.SnapshotMeta, sum uint64, err error) {
	if strings.ContainsAny(id, "/\\") {
		return nil, nil, 0, fatal.Corrupt(s.dir, "a snapshot named %q", id)
	}
	path := s.path(id)
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, 0, fatal.Corrupt(path, "%w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, 0, fatal.Corrupt(path, "%w", err)
	}
	end := make([]byte, snapEnd)
	if st.Size() < int64(snapEnd) {
		return nil, nil, 0, fatal.Corrupt(path, "it is cut short")
	}
	if _, err := f.ReadAt(end, st.Size()-int64(snapEnd)); err != nil {
		return nil, nil, 0, fatal.Corrupt(path, "%w", err)
	}
	n := binary.BigEndian.Uint64(end)
	if string(end[24:]) != snapMagic || n > uint64(st.Size()-int64(snapEnd)) || n > 1<<20 {
		return nil, nil, 0, fatal.Corrupt(path, "it has no end mark")
	}
	raw := make([]byte, n)
	if _, err := f.ReadAt(raw, st.Size()-int64(snapEnd)-int64(n)); err != nil {
		return nil, nil, 0, fatal.Corrupt(path, "%w", err)
	}
	meta := &raft.SnapshotMeta{}
	if xxhash.Sum64(raw) != binary.BigEndian.Uint64(end[16:]) || json.Unmarshal(raw, meta) != nil {
		return nil, nil, 0, fatal.Corrupt(path, "its description does not match its checksum")
	}
	if meta.ID != id || meta.Size != st.Size()-int64(snapEnd)-int64(n) {
		return nil, nil, 0, fatal.Corrupt(path, "it describes snapshot %s of %d bytes", meta.ID, meta.Size)
	}
	return f, meta, binary.BigEndian.Uint64(end[8:]), nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if err := s.latch.Failed(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.opened++
	tmp := filepath.Join(s.dir, fmt.Sprintf("%016x-%016x.%d.tmp", term, index, s.opened))
	s.mu.Unlock()
	f, err := createDirect(tmp)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return &sink{
		store: s, file: f, sum: xxhash.New(),
		meta: raft.SnapshotMeta{
			Version: version, ID: fmt.Sprintf("%016x-%016x", term, index), Index: index, Term: term,
			Configuration: configuration, ConfigurationIndex: configurationIndex,
		},
	}, nil
}

// sink writes one snapshot. It belongs to one goroutine.
type sink struct {
	store *snapshots
	file  *directFile
	sum   *xxhash.Digest
	meta  raft.SnapshotMeta
	done  bool
}

func (k *sink) ID() string { return k.meta.ID }

func (k *sink) Write(p []byte) (int, error) {
	n, err := k.file.Write(p)
	_, _ = k.sum.Write(p[:n]) // it never fails
	k.meta.Size += int64(n)
	return n, err
}

// Close puts the snapshot in its place. An error leaves no snapshot behind.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	if err := k.finish(); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), k.Cancel())
	}
	k.done = true
	return k.store.reap()
}

func (k *sink) finish() error {
	raw, err := json.Marshal(k.meta)
	if err != nil {
		return err
	}
	end := binary.BigEndian.AppendUint64(raw, uint64(len(raw)))
	end = binary.BigEndian.AppendUint64(end, k.sum.Sum64())
	end = binary.BigEndian.AppendUint64(end, xxhash.Sum64(raw[:len(raw):len(raw)]))
	if _, err := k.file.Write(append(end, snapMagic...)); err != nil {
		return err
	}
	if err := errors.Join(k.file.finish(), k.file.Close()); err != nil {
		return err
	}
	if err := os.Rename(k.file.Name(), k.store.path(k.meta.ID)); err != nil {
		return err
	}
	return syncDir(k.store.dir)
}

// Cancel removes what was written.
func (k *sink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	k.file.Close()
	if err := os.Remove(k.file.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// reap removes all but the newest snapshots.
func (s *snapshots) reap() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, n := range names[min(len(names), snapRetain):] {
		if err := os.Remove(s.path(n)); err != nil {
			return err
		}
	}
	return nil
}

// The log's pages are given back when in one look no more entries than these have come; ticks alone are 40.
const (
	pagesLook = 10 * time.Second
	pagesRest = 200
)

// runPages gives the log's pages back whenever the log is at rest.
func (r *Replica) runPages(ctx context.Context) {
	t := time.NewTicker(pagesLook)
	defer t.Stop()
	last := r.raft.LastIndex()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		was := last
		if last = r.raft.LastIndex(); last-was <= pagesRest {
			r.disk.bolt.ReturnPages()
		}
	}
}

// snapshotLook is how often the log's growth is looked at.
const snapshotLook = 5 * time.Second

// snapshotRest is how many entries in one look are rest; ticks alone are 20.
const snapshotRest = 100

// runSnapshots takes a snapshot when the log has grown by many bytes. raft counts entries, and an entry holds up to
// hundreds of commands: an import of 100,000 nodes is too few entries for it.
func (r *Replica) runSnapshots(ctx context.Context) {
	t := time.NewTicker(snapshotLook)
	defer t.Stop()
	last := r.raft.LastIndex()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		was := last
		last = r.raft.LastIndex()
		r.keepBehind(last)
		if !r.snapshotDue(r.store.Grown(), last-was <= snapshotRest) {
			continue
		}
		taken := make(chan error, 1)
		go func(f raft.SnapshotFuture) { taken <- f.Error() }(r.raft.Snapshot()) // raft answers it, when it shuts down too
		select {
		case <-ctx.Done():
			return
		case err := <-taken:
			if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				r.log.Warn("no snapshot was taken", "err", err)
			}
		}
	}
}

// leastTrailing is how many entries stay behind a snapshot at least.
const leastTrailing = 64

// keepBehind bounds the entries that stay behind the next snapshot, for members that come back, by bytes: raft counts them,
// and 10,240 entries of an import are gigabytes, all of which the next start checks.
func (r *Replica) keepBehind(last uint64) {
	rc := r.raft.ReloadableConfig()
	n := trailing(r.cfg, r.store.Grown(), last-min(r.store.Floor(), last))
	if n == rc.TrailingLogs {
		return
	}
	rc.TrailingLogs = n
	if err := r.raft.ReloadConfig(rc); err != nil {
		r.log.Warn("the length of the log was not bounded", "err", err)
	}
}

// trailing is how many of entries that have so many bytes are as large as the growth that leads to a snapshot.
func trailing(cfg Config, size int64, entries uint64) uint64 {
	if size <= 0 {
		return cfg.TrailingLogs
	}
	fit := uint64(float64(entries) / float64(size) * float64(cfg.SnapshotBytes))
	return min(max(fit, leastTrailing), cfg.TrailingLogs)
}

// snapshotDue weighs what a snapshot costs now against what a start would cost. Under load it must be worth half of the
// newest one; at rest it is nearly free, and the next start has little to apply.
func (r *Replica) snapshotDue(grown int64, rest bool) bool {
	if rest {
		return grown >= r.cfg.SnapshotBytes/4
	}
	if grown < r.cfg.SnapshotBytes {
		return false
	}
	list, err := r.snaps.List()
	return err != nil || len(list) == 0 || grown >= list[0].Size/2
}

// watchedSnapshots tells when a snapshot is in place.
type watchedSnapshots struct {
	raft.SnapshotStore
	taken   func(index uint64, size int64, took time.Duration)
	started atomic.Bool // raft runs
	failed  error       // of Open before raft ran, which keeps it to itself
}

// Open implements raft.SnapshotStore.
func (w *watchedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, rc, err := w.SnapshotStore.Open(id)
	if err != nil && !w.started.Load() {
		w.failed = err
	}
	return meta, rc, err
}

// Create implements raft.SnapshotStore.
func (w *watchedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	k, err := w.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &watchedSink{SnapshotSink: k, index: index, began: time.Now(), taken: w.taken}, nil
}

type watchedSink struct {
	raft.SnapshotSink
	index uint64
	began time.Time
	size  int64
	taken func(index uint64, size int64, took time.Duration)
}

func (k *watchedSink) Write(p []byte) (int, error) {
	n, err := k.SnapshotSink.Write(p)
	k.size += int64(n)
	return n, err
}

// Close implements raft.SnapshotSink; raft calls it again after Persist.
func (k *watchedSink) Close() error {
	err := k.SnapshotSink.Close()
	if err == nil && k.taken != nil {
		k.taken(k.index, k.size, time.Since(k.began))
		k.taken = nil
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
