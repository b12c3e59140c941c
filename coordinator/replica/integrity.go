package replica

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// sumSize is the length of the checksum that leads a stored value and a log record's extensions.
const sumSize = 8

// Keys that raft keeps in the stable store. They are written when a member is made, so that their absence means
// that they were lost: a member that forgot its vote could vote twice.
var (
	keyTerm     = []byte("CurrentTerm")  // read-only
	keyVoteTerm = []byte("LastVoteTerm") // read-only
	keyVoteFor  = []byte("LastVoteCand") // read-only
)

// store is the checked form of a member's LogStore and StableStore. The zero floor means no snapshot.
// Its methods are safe for concurrent use as far as those beneath are.
type store struct {
	cluster, member string
	file            string // for messages
	logs            raft.LogStore
	stable          raft.StableStore
	latch           *fatal.Latch
	floor           atomic.Uint64 // index of the newest snapshot
	grown           atomic.Int64  // bytes of entries stored since, about
	running         atomic.Bool   // raft's goroutines call: see stop
	writes          underway

	mu     sync.Mutex
	silent map[uint64]bool // indexes of entries that raft keeps from the state machine
}

// maxSilent bounds the entries remembered in store.silent; a term adds one or two.
const maxSilent = 4096

// note remembers whether the state machine sees an entry.
func (s *store) note(l *raft.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
		delete(s.silent, l.Index)
		return
	}
	if s.silent == nil {
		s.silent = map[uint64]bool{}
	}
	s.silent[l.Index] = true
	if len(s.silent) > maxSilent {
		for i := range s.silent {
			if i+maxSilent < l.Index {
				delete(s.silent, i)
			}
		}
	}
}

// visible is the newest index up to the given one that the state machine sees.
func (s *store) visible(index uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for index > 0 && s.silent[index] {
		index--
	}
	return index
}

func (s *store) sumLog(l *raft.Log, ext []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	word := func(v uint64) {
		binary.BigEndian.PutUint64(b[:], v)
		d.Write(b[:])
	}
	bytes := func(p []byte) {
		word(uint64(len(p)))
		d.Write(p)
	}
	bytes([]byte(s.cluster))
	bytes([]byte(s.member))
	word(l.Index)
	word(l.Term)
	word(uint64(l.Type))
	if !l.AppendedAt.IsZero() {
		word(uint64(l.AppendedAt.UnixNano()))
	}
	bytes(l.Data)
	bytes(ext)
	return d.Sum64()
}

func (s *store) sumValue(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	for _, p := range [][]byte{[]byte(s.cluster), []byte(s.member), key, value} {
		binary.BigEndian.PutUint64(b[:], uint64(len(p)))
		d.Write(b[:])
		d.Write(p)
	}
	return d.Sum64()
}

// stop latches the error. raft panics on an error from the calls that use stop, in a goroutine of its own, and
// the process would die without the message; so the goroutine ends here, and Run returns the error.
func (s *store) stop(err error) error {
	err = s.latch.Fail(err)
	if s.running.Load() {
		runtime.Goexit()
	}
	return err
}

// GetLog reads and verifies a record. raft.ErrLogNotFound is for indexes that a snapshot covers, or past the end.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	if err := s.latch.Failed(); err != nil {
		return s.stop(err)
	}
	err := s.logs.GetLog(index, l)
	if errors.Is(err, raft.ErrLogNotFound) {
		if last, lerr := s.logs.LastIndex(); lerr == nil && index > s.floor.Load() && index <= last && index > 0 {
			return s.stop(fatal.Corrupt(s.file, "entry %d is missing (the log ends at %d)", index, last))
		}
		return err
	}
	if err != nil {
		return s.stop(fatal.Corrupt(s.file, "entry %d: %w", index, err))
	}
	if err := s.check(index, l); err != nil {
		return s.stop(err)
	}
	return nil
}

// check verifies a record as stored, and takes the checksum off.
func (s *store) check(index uint64, l *raft.Log) error {
	if len(l.Extensions) < sumSize {
		return fatal.Corrupt(s.file, "entry %d has no checksum", index)
	}
	sum, ext := binary.BigEndian.Uint64(l.Extensions), l.Extensions[sumSize:]
	if l.Index != index {
		return fatal.Corrupt(s.file, "entry %d says that it is entry %d", index, l.Index)
	}
	if s.sumLog(l, ext) != sum {
		return fatal.Corrupt(s.file, "entry %d does not match its checksum", index)
	}
	if l.Extensions = nil; len(ext) > 0 {
		l.Extensions = ext
	}
	return nil
}

// StoreLog stores one record.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores records with their checksums. The first error latches.
func (s *store) StoreLogs(logs []*raft.Log) error {
	if err := s.latch.Failed(); err != nil {
		return err
	}
	copies := make([]raft.Log, len(logs))
	out := make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = append(binary.BigEndian.AppendUint64(nil, s.sumLog(l, l.Extensions)), l.Extensions...)
		out[i] = &copies[i]
	}
	defer s.writes.begin()()
	if err := s.logs.StoreLogs(out); err != nil {
		return s.latch.Fail(s.writeError("entries", err))
	}
	for _, l := range logs {
		s.note(l)
		s.grown.Add(int64(len(l.Data)))
	}
	return nil
}

// DeleteRange removes records, ends included.
func (s *store) DeleteRange(low, high uint64) error {
	if err := s.latch.Failed(); err != nil {
		return err
	}
	defer s.writes.begin()()
	if err := s.logs.DeleteRange(low, high); err != nil {
		return s.latch.Fail(s.writeError("a removal", err))
	}
	return nil
}

// FirstIndex is the index of the first record, 0 when there is none.
func (s *store) FirstIndex() (uint64, error) { return s.edge(s.logs.FirstIndex) }

// LastIndex is the index of the last record, 0 when there is none.
func (s *store) LastIndex() (uint64, error) { return s.edge(s.logs.LastIndex) }

func (s *store) edge(read func() (uint64, error)) (uint64, error) {
	if err := s.latch.Failed(); err != nil {
		return 0, err
	}
	i, err := read()
	if err != nil {
		return 0, s.latch.Fail(fatal.Corrupt(s.file, "first or last index: %w", err))
	}
	return i, nil
}

// Set stores a value with its checksum. The first error latches.
func (s *store) Set(key, value []byte) error {
	if err := s.latch.Failed(); err != nil {
		return s.stop(err)
	}
	stored := append(binary.BigEndian.AppendUint64(make([]byte, 0, sumSize+len(value)), s.sumValue(key, value)), value...)
	defer s.writes.begin()()
	if err := s.stable.Set(key, stored); err != nil {
		return s.stop(s.writeError("term and vote", err))
	}
	return nil
}

var errNotFound = errors.New("not found") // the text is what raft compares with

// Get reads and verifies a value.
func (s *store) Get(key []byte) ([]byte, error) {
	if err := s.latch.Failed(); err != nil {
		return nil, s.stop(err)
	}
	stored, err := s.stable.Get(key)
	if err != nil && err.Error() == errNotFound.Error() {
		return nil, errNotFound
	}
	if err != nil {
		return nil, s.stop(fatal.Corrupt(s.file, "key %s: %w", key, err))
	}
	if len(stored) < sumSize || binary.BigEndian.Uint64(stored) != s.sumValue(key, stored[sumSize:]) {
		return nil, s.stop(fatal.Corrupt(s.file, "the value of %s does not match its checksum", key))
	}
	return stored[sumSize:], nil
}

// SetUint64 stores a number.
func (s *store) SetUint64(key []byte, v uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 reads a number.
func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, s.stop(fatal.Corrupt(s.file, "the value of %s has %d bytes instead of 8", key, len(v)))
	}
	return binary.BigEndian.Uint64(v), nil
}

func (s *store) writeError(what string, err error) error {
	return fault.New(fault.Internal, "write "+s.file, "%s: %w", what, err).
		WithHelp("nobody knows what is on the disk after a failed write: check space and health of the disk; the member reads all of it again when it starts")
}

// genesis writes what an empty member holds.
func (s *store) genesis() error {
	return errors.Join(s.SetUint64(keyTerm, 0), s.SetUint64(keyVoteTerm, 0), s.Set(keyVoteFor, nil))
}

// verify reads everything, before raft does. snapshot is the index of the newest snapshot, 0 without one.
func (s *store) verify(snapshot uint64) error {
	s.floor.Store(snapshot)
	term, err := s.GetUint64(keyTerm)
	if err == nil {
		_, err = s.GetUint64(keyVoteTerm)
	}
	if err == nil {
		_, err = s.Get(keyVoteFor)
	}
	if errors.Is(err, errNotFound) {
		return fatal.Corrupt(s.file, "term or vote is missing: this member could vote twice")
	}
	if err != nil {
		return err
	}
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if last > snapshot && first > snapshot+1 {
		return fatal.Corrupt(s.file, "the log begins at %d, the newest snapshot ends at %d: entries between them are missing", first, snapshot)
	}
	var before uint64
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) && i <= snapshot {
			continue // an installed or restored snapshot leaves a gap before its index
		}
		if err != nil {
			return err
		}
		if l.Term < before || l.Term > term {
			return fatal.Corrupt(s.file, "entry %d has term %d, after %d and with %d as the newest", i, l.Term, before, term)
		}
		before = l.Term
		s.note(&l)
		if i > snapshot {
			s.grown.Add(int64(len(l.Data)))
		}
	}
	return nil
}
