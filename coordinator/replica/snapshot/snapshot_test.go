package snapshot_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
	"github.com/farrier-project/farrier/pkg/fault"
)

func latch() *fatal.Latch { return fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeSnapshot(t *testing.T, s raft.SnapshotStore, index uint64, data string) string {
	t.Helper()
	k, err := s.Create(1, index, 2, raft.Configuration{}, 1, nil)
	must(t, err)
	_, err = k.Write([]byte(data))
	must(t, err)
	must(t, k.Close())
	return k.ID()
}

func TestSnapshotStore(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "0-0.1.tmp"), []byte("of a process that ended"), 0o600))
	s, err := snapshot.Open(dir, latch())
	must(t, err)
	for i := uint64(1); i <= 4; i++ {
		writeSnapshot(t, s, i*100, strings.Repeat("state", int(i)*50))
	}
	cancelled, err := s.Create(1, 900, 2, raft.Configuration{}, 1, nil)
	must(t, err)
	must(t, cancelled.Cancel())
	list, err := s.List()
	must(t, err)
	if len(list) != 1 || list[0].Index != 400 {
		t.Fatalf("the list is %v, want only the newest", list)
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 2 {
		t.Errorf("%d files are kept, want the newest two", len(files))
	}
	path := filepath.Join(dir, list[0].ID+".snap")
	whole, err := os.ReadFile(path)
	must(t, err)
	for at := 0; at < len(whole); at += 1 + at%3 { // never another state, never an older snapshot
		bad := bytes.Clone(whole)
		bad[at] ^= 0x10
		must(t, os.WriteFile(path, bad, 0o600))
		list, err := s.List()
		if err == nil {
			_, _, err = s.Open(list[0].ID)
		}
		if err == nil {
			t.Fatalf("byte %d of %d changed: the snapshot opens", at, len(whole))
		}
		if !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	must(t, os.WriteFile(path, whole[:len(whole)-1], 0o600))
	if _, err := s.List(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("cut short: %v", err)
	}
}

// TestWatched: a snapshot is told of once, when it is in place, and what raft keeps to itself at its start is kept here.
func TestWatched(t *testing.T) {
	dir := t.TempDir()
	s, err := snapshot.Open(dir, latch())
	must(t, err)
	var told []snapshot.Taken
	w := snapshot.Watch(s, func(k snapshot.Taken) { told = append(told, k) })
	if w.Newest() != 0 {
		t.Errorf("the newest of none has %d bytes", w.Newest())
	}
	cancelled, err := w.Create(1, 3, 2, raft.Configuration{}, 1, nil)
	must(t, err)
	must(t, cancelled.Cancel())
	k, err := w.Create(1, 5, 2, raft.Configuration{}, 1, nil)
	must(t, err)
	_, err = k.Write([]byte("state"))
	must(t, err)
	for range 2 { // raft calls it again
		must(t, k.Close())
	}
	if len(told) != 1 || told[0].Index != 5 || told[0].Bytes != 5 || w.Newest() != 5 {
		t.Errorf("told of %+v, the newest has %d bytes", told, w.Newest())
	}
	path := filepath.Join(dir, k.ID()+".snap")
	raw, err := os.ReadFile(path)
	must(t, err)
	raw[0] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
	if _, _, err := w.Open(k.ID()); err == nil || w.Failed() != err {
		t.Errorf("Open: %v, kept: %v", err, w.Failed())
	}
}

func TestNoSnapshotAfterAFatalError(t *testing.T) {
	l := latch()
	s, err := snapshot.Open(t.TempDir(), l)
	must(t, err)
	_ = l.Fail(errors.New("input/output error"))
	if _, err := s.Create(1, 5, 2, raft.Configuration{}, 1, nil); err == nil {
		t.Error("a member that must stop began a snapshot")
	}
}
