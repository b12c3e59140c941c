package logstore

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

// Options say whose records these are, and what they are kept in.
type Options struct {
	Cluster, Member string // part of each checksum
	File            string // for messages
	Logs            raft.LogStore
	Stable          raft.StableStore
	Latch           *fatal.Latch
}

// Store is the checked form of a member's raft.LogStore and raft.StableStore. Its methods are safe for concurrent use as far as
// those beneath are.
type Store struct {
	o       Options
	floor   atomic.Uint64 // index of the newest snapshot; 0 without one
	grown   atomic.Int64  // bytes of entries stored since, about
	running atomic.Bool   // raft's goroutines call: see stop
	writes  underway

	mu     sync.Mutex
	silent map[uint64]bool // indexes of entries that raft keeps from the state machine
}

// New makes the checked form. Nothing is read yet: see Init and Verify.
func New(o Options) *Store { return &Store{o: o} }

// File is where the records are, for messages.
func (s *Store) File() string { return s.o.File }

// Floor is the index of the newest snapshot, 0 without one.
func (s *Store) Floor() uint64 { return s.floor.Load() }

// Grown is about how many bytes of entries were stored since the newest snapshot.
func (s *Store) Grown() int64 { return s.grown.Load() }

// SnapshotTaken says that a snapshot up to the index is in place.
func (s *Store) SnapshotTaken(index uint64) {
	s.floor.Store(max(index, s.floor.Load()))
	s.grown.Store(0)
}

// RaftRuns says that raft's goroutines call from now on. raft panics on an error of some calls, in a goroutine of its own, and the
// process would die without the message: with such an error the calling goroutine ends instead, and the latch has it.
func (s *Store) RaftRuns() { s.running.Store(true) }

// OldestWrite is the number of the write that began first of those that have not ended; 0 when there is none.
func (s *Store) OldestWrite() uint64 { return s.writes.oldest() }

// maxSilent bounds the entries remembered in Store.silent; a term adds one or two.
const maxSilent = 4096

// note remembers whether the state machine sees an entry.
func (s *Store) note(l *raft.Log) {
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

// Visible is the newest index up to the given one that the state machine sees.
func (s *Store) Visible(index uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for index > 0 && s.silent[index] {
		index--
	}
	return index
}

func (s *Store) sumLog(l *raft.Log, ext []byte) uint64 {
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
	bytes([]byte(s.o.Cluster))
	bytes([]byte(s.o.Member))
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

func (s *Store) sumValue(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	for _, p := range [][]byte{[]byte(s.o.Cluster), []byte(s.o.Member), key, value} {
		binary.BigEndian.PutUint64(b[:], uint64(len(p)))
		d.Write(b[:])
		d.Write(p)
	}
	return d.Sum64()
}

// stop latches the error, and ends the goroutine if it is one of raft's: see RaftRuns.
func (s *Store) stop(err error) error {
	err = s.o.Latch.Fail(err)
	if s.running.Load() {
		runtime.Goexit()
	}
	return err
}

// GetLog reads and verifies a record. raft.ErrLogNotFound is for indexes that a snapshot covers, or past the end.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	if err := s.o.Latch.Failed(); err != nil {
		return s.stop(err)
	}
	err := s.o.Logs.GetLog(index, l)
	if errors.Is(err, raft.ErrLogNotFound) {
		if last, lerr := s.o.Logs.LastIndex(); lerr == nil && index > s.floor.Load() && index <= last && index > 0 {
			return s.stop(fatal.Corrupt(s.o.File, "entry %d is missing (the log ends at %d)", index, last))
		}
		return err
	}
	if err != nil {
		return s.stop(fatal.Corrupt(s.o.File, "entry %d: %w", index, err))
	}
	if err := s.check(index, l); err != nil {
		return s.stop(err)
	}
	return nil
}

// check verifies a record as stored, and takes the checksum off.
func (s *Store) check(index uint64, l *raft.Log) error {
	if len(l.Extensions) < sumSize {
		return fatal.Corrupt(s.o.File, "entry %d has no checksum", index)
	}
	sum, ext := binary.BigEndian.Uint64(l.Extensions), l.Extensions[sumSize:]
	if l.Index != index {
		return fatal.Corrupt(s.o.File, "entry %d says that it is entry %d", index, l.Index)
	}
	if s.sumLog(l, ext) != sum {
		return fatal.Corrupt(s.o.File, "entry %d does not match its checksum", index)
	}
	if l.Extensions = nil; len(ext) > 0 {
		l.Extensions = ext
	}
	return nil
}

// StoreLog stores one record.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores records with their checksums. The first error latches.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if err := s.o.Latch.Failed(); err != nil {
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
	if err := s.o.Logs.StoreLogs(out); err != nil {
		return s.o.Latch.Fail(s.writeError("entries", err))
	}
	for _, l := range logs {
		s.note(l)
		s.grown.Add(int64(len(l.Data)))
	}
	return nil
}

// DeleteRange removes records, ends included.
func (s *Store) DeleteRange(low, high uint64) error {
	if err := s.o.Latch.Failed(); err != nil {
		return err
	}
	defer s.writes.begin()()
	if err := s.o.Logs.DeleteRange(low, high); err != nil {
		return s.o.Latch.Fail(s.writeError("a removal", err))
	}
	return nil
}

// FirstIndex is the index of the first record, 0 when there is none.
func (s *Store) FirstIndex() (uint64, error) { return s.edge(s.o.Logs.FirstIndex) }

// LastIndex is the index of the last record, 0 when there is none.
func (s *Store) LastIndex() (uint64, error) { return s.edge(s.o.Logs.LastIndex) }

func (s *Store) edge(read func() (uint64, error)) (uint64, error) {
	if err := s.o.Latch.Failed(); err != nil {
		return 0, err
	}
	i, err := read()
	if err != nil {
		return 0, s.o.Latch.Fail(fatal.Corrupt(s.o.File, "first or last index: %w", err))
	}
	return i, nil
}

// Set stores a value with its checksum. The first error latches.
func (s *Store) Set(key, value []byte) error {
	if err := s.o.Latch.Failed(); err != nil {
		return s.stop(err)
	}
	stored := append(binary.BigEndian.AppendUint64(make([]byte, 0, sumSize+len(value)), s.sumValue(key, value)), value...)
	defer s.writes.begin()()
	if err := s.o.Stable.Set(key, stored); err != nil {
		return s.stop(s.writeError("term and vote", err))
	}
	return nil
}

var errNotFound = errors.New("not found") // the text is what raft compares with

// Get reads and verifies a value.
func (s *Store) Get(key []byte) ([]byte, error) {
	if err := s.o.Latch.Failed(); err != nil {
		return nil, s.stop(err)
	}
	stored, err := s.o.Stable.Get(key)
	if err != nil && err.Error() == errNotFound.Error() {
		return nil, errNotFound
	}
	if err != nil {
		return nil, s.stop(fatal.Corrupt(s.o.File, "key %s: %w", key, err))
	}
	if len(stored) < sumSize || binary.BigEndian.Uint64(stored) != s.sumValue(key, stored[sumSize:]) {
		return nil, s.stop(fatal.Corrupt(s.o.File, "the value of %s does not match its checksum", key))
	}
	return stored[sumSize:], nil
}

// SetUint64 stores a number.
func (s *Store) SetUint64(key []byte, v uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 reads a number.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, s.stop(fatal.Corrupt(s.o.File, "the value of %s has %d bytes instead of 8", key, len(v)))
	}
	return binary.BigEndian.Uint64(v), nil
}

func (s *Store) writeError(what string, err error) error {
	return fault.New(fault.Internal, "write "+s.o.File, "%s: %w", what, err).
		WithHelp("nobody knows what is on the disk after a failed write: check space and health of the disk; the member reads all of it again when it starts")
}

// SetTerm stores the newest term that the member has seen.
func (s *Store) SetTerm(term uint64) error { return s.SetUint64(keyTerm, term) }

// Init writes what an empty member holds.
func (s *Store) Init() error {
	return errors.Join(s.SetTerm(0), s.SetUint64(keyVoteTerm, 0), s.Set(keyVoteFor, nil))
}

// Verify reads everything, before raft does. snapshot is the index of the newest snapshot, 0 without one. Errors are
// fault.Corrupt, and latched.
func (s *Store) Verify(snapshot uint64) error {
	s.floor.Store(snapshot)
	term, err := s.GetUint64(keyTerm)
	if err == nil {
		_, err = s.GetUint64(keyVoteTerm)
	}
	if err == nil {
		_, err = s.Get(keyVoteFor)
	}
	if errors.Is(err, errNotFound) {
		return fatal.Corrupt(s.o.File, "term or vote is missing: this member could vote twice")
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
		return fatal.Corrupt(s.o.File, "the log begins at %d, the newest snapshot ends at %d: entries between them are missing", first, snapshot)
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
			return fatal.Corrupt(s.o.File, "entry %d has term %d, after %d and with %d as the newest", i, l.Term, before, term)
		}
		before = l.Term
		s.note(&l)
		if i > snapshot {
			s.grown.Add(int64(len(l.Data)))
		}
	}
	return nil
}
