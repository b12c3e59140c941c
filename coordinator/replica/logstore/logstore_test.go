package logstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/logstore"
	"github.com/farrier-project/farrier/pkg/fault"
)

func latch() *fatal.Latch { return fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}) }

// open is the checked form of a store, as that of a member.
func open(in interface {
	raft.LogStore
	raft.StableStore
}, member string, l *fatal.Latch) *logstore.Store {
	return logstore.New(logstore.Options{Cluster: "c", Member: member, File: "memory", Logs: in, Stable: in, Latch: l})
}

func entryData(i uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, i*0x9e3779b97f4a7c15), int(5+i%40))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	for _, c := range []struct {
		name     string
		snapshot uint64
		break_   func(t *testing.T, m *raft.InmemStore, s *logstore.Store)
		want     string
	}{
		{"a gap", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) { must(t, m.DeleteRange(7, 7)) }, "entry 7 is missing"},
		{"a lost start", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) { must(t, m.DeleteRange(1, 4)) }, "begins at 5"},
		{"a gap behind the snapshot", 3, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) { must(t, m.DeleteRange(1, 4)) }, "begins at 5"},
		{"an entry in another's place", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) {
			var l raft.Log
			must(t, m.GetLog(5, &l))
			l.Index = 6
			must(t, m.StoreLog(&l))
		}, "entry 6"},
		{"an entry of another member", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) {
			o := open(m, "c2", latch())
			must(t, o.StoreLog(&raft.Log{Index: 5, Term: 2, Type: raft.LogCommand, Data: entryData(5)}))
		}, "entry 5"},
		{"an entry past the term", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) {
			must(t, s.StoreLog(&raft.Log{Index: 11, Term: 9, Type: raft.LogCommand}))
		}, "entry 11 has term 9"},
		{"a term that goes back", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) {
			must(t, s.StoreLog(&raft.Log{Index: 11, Term: 1, Type: raft.LogCommand}))
		}, "entry 11 has term 1"},
		{"a changed term", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) {
			must(t, m.Set([]byte("CurrentTerm"), make([]byte, 16)))
		}, "CurrentTerm"},
		{"an older vote under the term's key", 0, func(t *testing.T, m *raft.InmemStore, s *logstore.Store) {
			v, err := m.Get([]byte("LastVoteTerm"))
			must(t, err)
			must(t, m.Set([]byte("CurrentTerm"), v))
		}, "CurrentTerm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := raft.NewInmemStore()
			s := open(m, "c1", latch())
			must(t, s.Init())
			must(t, s.SetTerm(3))
			for i := uint64(1); i <= 10; i++ {
				must(t, s.StoreLog(&raft.Log{Index: i, Term: 2, Type: raft.LogCommand, Data: entryData(i)}))
			}
			c.break_(t, m, s)
			err := s.Verify(c.snapshot)
			if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want corrupt with %q", err, c.want)
			}
		})
	}
}

func TestVerifyWantsTermAndVote(t *testing.T) {
	m := raft.NewInmemStore()
	s := open(m, "c1", latch())
	must(t, s.SetTerm(3))
	if err := s.Verify(0); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "vote") {
		t.Fatalf("got %v", err)
	}
}

// TestGapBehindASnapshot: an installed or restored snapshot leaves a gap before its index, which is sound.
func TestGapBehindASnapshot(t *testing.T) {
	m := raft.NewInmemStore()
	l := latch()
	s := open(m, "c1", l)
	must(t, s.Init())
	must(t, s.SetTerm(3))
	for _, i := range []uint64{1, 2, 3, 8, 9} {
		must(t, s.StoreLog(&raft.Log{Index: i, Term: 2, Type: raft.LogCommand}))
	}
	if err := s.Verify(7); err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(5, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) || l.Failed() != nil {
		t.Fatalf("an entry that the snapshot covers: %v", err)
	}
}

// failing fails while it has an error.
type failing struct {
	*raft.InmemStore
	err error
}

func (f *failing) StoreLogs(l []*raft.Log) error {
	if f.err != nil {
		return f.err
	}
	return f.InmemStore.StoreLogs(l)
}

func TestFirstDiskErrorLatches(t *testing.T) {
	f := &failing{InmemStore: raft.NewInmemStore()}
	closed := 0
	s := open(f, "c1", fatal.NewLatch(slog.New(slog.DiscardHandler), func() { closed++ }))
	must(t, s.Init())
	f.err = errors.New("no space left on device")
	if err := s.StoreLog(&raft.Log{Index: 1}); err == nil {
		t.Fatal("the error is lost")
	}
	f.err = nil // the disk is back: nobody may believe it
	for name, err := range map[string]error{
		"StoreLogs": s.StoreLogs([]*raft.Log{{Index: 2}}), "Set": s.Set([]byte("k"), nil), "DeleteRange": s.DeleteRange(1, 1), "GetLog": s.GetLog(1, &raft.Log{}),
	} {
		var stop *fatal.Error
		if !errors.As(err, &stop) || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s after the error: %v", name, err)
		}
	}
	if closed != 1 {
		t.Errorf("the transport was closed %d times", closed)
	}
}

// TestWhatOthersAsk: growth counts from the newest snapshot, and entries of raft's own are not visible.
func TestWhatOthersAsk(t *testing.T) {
	s := open(raft.NewInmemStore(), "c1", latch())
	must(t, s.Init())
	must(t, s.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration}, {Index: 2, Term: 1, Type: raft.LogCommand, Data: make([]byte, 100)},
		{Index: 3, Term: 1, Type: raft.LogNoop}, {Index: 4, Term: 1, Type: raft.LogNoop},
	}))
	if s.Visible(1) != 1 || s.Visible(2) != 2 || s.Visible(4) != 2 {
		t.Errorf("visible are %d, %d, %d", s.Visible(1), s.Visible(2), s.Visible(4))
	}
	if s.Grown() != 100 || s.Floor() != 0 || s.OldestWrite() != 0 {
		t.Errorf("grown by %d since %d, write %d", s.Grown(), s.Floor(), s.OldestWrite())
	}
	s.SnapshotTaken(4)
	s.SnapshotTaken(2) // an older one does not lower the floor
	if s.Grown() != 0 || s.Floor() != 4 {
		t.Errorf("grown by %d since %d", s.Grown(), s.Floor())
	}
}

// TestHungWriteIsSeen: the oldest write is the one that began first, until it ends.
func TestHungWriteIsSeen(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	s := open(&hanging{raft.NewInmemStore(), began, goOn}, "c1", latch())
	done := make(chan error)
	go func() { done <- s.StoreLog(&raft.Log{Index: 1}) }()
	<-began
	first := s.OldestWrite()
	go func() { done <- s.StoreLog(&raft.Log{Index: 2}) }()
	<-began
	if first == 0 || s.OldestWrite() != first {
		t.Errorf("the oldest write is %d, it was %d", s.OldestWrite(), first)
	}
	close(goOn)
	must(t, <-done)
	must(t, <-done)
	if n := s.OldestWrite(); n != 0 {
		t.Errorf("write %d never ended", n)
	}
}

// hanging is a store whose writes wait.
type hanging struct {
	*raft.InmemStore
	began, goOn chan struct{}
}

func (h *hanging) StoreLogs(l []*raft.Log) error {
	h.began <- struct{}{}
	<-h.goOn
	return h.InmemStore.StoreLogs(l)
}
