package snapshot

import (
	"bufio"
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

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
)

const (
	suffix  = ".snap"
	retain  = 2
	magic   = "farrier snapshot 1\n"
	endSize = 8 + 8 + 8 + len(magic) // length of the description, hash of the data, hash of the description
)

// Store is a raft.SnapshotStore in a directory. It is safe for concurrent use.
type Store struct {
	dir    string
	latch  *fatal.Latch
	mu     sync.Mutex
	opened int // temporary files made by this process: makes their names unique
}

// Open opens a directory, and removes what a process left there that ended while it wrote. Once the latch has an error, no
// snapshot is begun.
func Open(dir string, l *fatal.Latch) (*Store, error) {
	s := &Store{dir: dir, latch: l}
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
func (s *Store) names() ([]string, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		if strings.HasSuffix(f.Name(), suffix) {
			out = append(out, strings.TrimSuffix(f.Name(), suffix))
		}
	}
	slices.Sort(out) // the names are of fixed width: term, index
	slices.Reverse(out)
	return out, nil
}

// List implements raft.SnapshotStore: the newest snapshot, verified as far as its description.
func (s *Store) List() ([]*raft.SnapshotMeta, error) {
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
func (s *Store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
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
	return meta, reader{bufio.NewReaderSize(data, 256<<10), f}, nil
}

type reader struct {
	io.Reader
	io.Closer
}

func (s *Store) path(id string) string { return filepath.Join(s.dir, id+suffix) }

// read opens a snapshot and verifies its description; the answered hash is that of its data.
func (s *Store) read(id string) (_ *os.File, _ *raft.SnapshotMeta, sum uint64, err error) {
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
	end := make([]byte, endSize)
	if st.Size() < int64(endSize) {
		return nil, nil, 0, fatal.Corrupt(path, "it is cut short")
	}
	if _, err := f.ReadAt(end, st.Size()-int64(endSize)); err != nil {
		return nil, nil, 0, fatal.Corrupt(path, "%w", err)
	}
	n := binary.BigEndian.Uint64(end)
	if string(end[24:]) != magic || n > uint64(st.Size()-int64(endSize)) || n > 1<<20 {
		return nil, nil, 0, fatal.Corrupt(path, "it has no end mark")
	}
	raw := make([]byte, n)
	if _, err := f.ReadAt(raw, st.Size()-int64(endSize)-int64(n)); err != nil {
		return nil, nil, 0, fatal.Corrupt(path, "%w", err)
	}
	meta := &raft.SnapshotMeta{}
	if xxhash.Sum64(raw) != binary.BigEndian.Uint64(end[16:]) || json.Unmarshal(raw, meta) != nil {
		return nil, nil, 0, fatal.Corrupt(path, "its description does not match its checksum")
	}
	if meta.ID != id || meta.Size != st.Size()-int64(endSize)-int64(n) {
		return nil, nil, 0, fatal.Corrupt(path, "it describes snapshot %s of %d bytes", meta.ID, meta.Size)
	}
	return f, meta, binary.BigEndian.Uint64(end[8:]), nil
}

// Create implements raft.SnapshotStore.
func (s *Store) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
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
	store *Store
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
	if _, err := k.file.Write(append(end, magic...)); err != nil {
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
func (s *Store) reap() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, n := range names[min(len(names), retain):] {
		if err := os.Remove(s.path(n)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
