package home_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/replica/logstore"
	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
	"github.com/farrier-project/farrier/pkg/fault"
)

func diskPlace(t *testing.T) home.Place {
	t.Helper()
	return home.Place{Cluster: "0123456789abcdef", Member: "c1", Dir: filepath.Join(t.TempDir(), "data")}
}

func open(p home.Place) (*home.Home, error) {
	return home.Open(p, fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}), func(snapshot.Taken) {})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a home with entries up to the index; their data is a function of it. It answers the log's path and bytes.
func create(t *testing.T, p home.Place, last uint64) (path string, whole []byte) {
	t.Helper()
	must(t, home.Create(p, func(h *home.Home) error { return h.Log.SetTerm(3) }))
	h, err := open(p)
	must(t, err)
	for i := uint64(1); i <= last; i += 50 {
		var logs []*raft.Log
		for k := i; k < i+50 && k <= last; k++ {
			logs = append(logs, &raft.Log{Index: k, Term: 2, Type: raft.LogCommand, Data: entryData(k), AppendedAt: time.Unix(int64(k), 7)})
		}
		must(t, h.Log.StoreLogs(logs))
	}
	must(t, h.Close())
	path = filepath.Join(p.Dir, "raft.db")
	whole, err = os.ReadFile(path)
	must(t, err)
	return path, whole
}

func entryData(i uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, i*0x9e3779b97f4a7c15), int(5+i%40))
}

// TestByteFlips damages a closed log file, one bit at a time: the member either refuses to open, naming the file and
// the way out, or reads exactly what was written. Nothing panics, nothing lasts.
func TestByteFlips(t *testing.T) {
	p := diskPlace(t)
	const last = 200
	path, whole := create(t, p, last)
	rnd := rand.New(rand.NewPCG(1, 2))
	refused, same := 0, 0
	for trial := range 220 {
		at, bit := rnd.IntN(len(whole)), byte(1)<<rnd.IntN(8)
		if trial < 90 { // both meta pages as a whole
			at = trial/2 + trial%2*os.Getpagesize()
		}
		bad := bytes.Clone(whole)
		bad[at] ^= bit
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := open(p)
		if err != nil {
			refused++
			checkAdvice(t, err, path)
			continue
		}
		same++
		checkWhole(t, h.Log, last, at)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d flips: %d refused, %d without effect, 0 silent", refused+same, refused, same)
	if refused < 60 || same == 0 {
		t.Errorf("%d refused, %d without effect: the trials do not hit what they should", refused, same)
	}
}

func checkAdvice(t *testing.T, err error, path string) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Corrupt {
		t.Fatalf("refused with %v (%v)", fault.KindOf(err), err)
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(e.Help, "farrier-coordinator rejoin") {
		t.Fatalf("no file or no advice in %q, %q", err, e.Help)
	}
}

func checkWhole(t *testing.T, s *logstore.Store, last uint64, at int) {
	t.Helper()
	if got, err := s.LastIndex(); err != nil || got != last {
		t.Fatalf("flip at %d: silent loss: last index %d, %v", at, got, err)
	}
	if got, err := s.GetUint64([]byte("CurrentTerm")); err != nil || got != 3 {
		t.Fatalf("flip at %d: silent change of the term to %d, %v", at, got, err)
	}
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatalf("flip at %d: entry %d: %v", at, i, err)
		}
		if l.Index != i || l.Term != 2 || l.Type != raft.LogCommand || !bytes.Equal(l.Data, entryData(i)) || len(l.Extensions) != 0 {
			t.Fatalf("flip at %d: silent change of entry %d", at, i)
		}
	}
}

func TestTruncationsAndSwappedPages(t *testing.T) {
	p := diskPlace(t)
	path, whole := create(t, p, 400)
	page := os.Getpagesize()
	swap := func(a, b int) []byte {
		out := bytes.Clone(whole)
		copy(out[a*page:(a+1)*page], whole[b*page:(b+1)*page])
		copy(out[b*page:(b+1)*page], whole[a*page:(a+1)*page])
		return out
	}
	cases := map[string][]byte{"empty": nil, "half a page": whole[:page/2], "one page": whole[:page], "meta pages swapped": swap(0, 1), "zeros": make([]byte, len(whole))}
	for i := 2; i < 40 && (i+1)*page <= len(whole); i++ {
		cases[fmt.Sprintf("page %d zeroed", i)] = append(append(bytes.Clone(whole[:i*page]), make([]byte, page)...), whole[(i+1)*page:]...)
		cases[fmt.Sprintf("pages %d and %d swapped", i, i+1)] = swap(i, i+1)
		cases[fmt.Sprintf("cut at page %d", i)] = whole[:i*page]
	}
	for name, bad := range cases {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := open(p)
		if err != nil {
			checkAdvice(t, err, path)
			continue
		}
		checkWhole(t, h.Log, 400, 0)
		if err := h.Close(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestCreateOnce(t *testing.T) {
	p := diskPlace(t)
	must(t, home.Create(p, nil))
	if err := home.Create(p, nil); !fault.Is(err, fault.Exists) {
		t.Errorf("again: %v", err)
	}
	other := p
	other.Member = "c2"
	if _, err := open(other); !fault.Is(err, fault.Invalid) {
		t.Errorf("another member's directory: %v", err)
	}
	if _, err := open(diskPlace(t)); !fault.Is(err, fault.NotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	h, err := open(p)
	must(t, err)
	if _, err := open(p); !fault.Is(err, fault.Busy) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, h.Close())
	h, err = open(p)
	must(t, err)
	must(t, h.Close())
	for name, bad := range map[string]home.Place{"no name": {Cluster: "c", Dir: "d"}, "no cluster": {Member: "m", Dir: "d"}, "nowhere": {Cluster: "c", Member: "m"},
		"in two places": {Cluster: "c", Member: "m", Dir: "d", Memory: home.NewMemory()}} {
		if err := home.Create(bad, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMemory: it is made once as a directory is, and keeps what it has for who opens it next.
func TestMemory(t *testing.T) {
	p := home.Place{Cluster: "c", Member: "m", Memory: home.NewMemory()}
	if _, err := open(p); !fault.Is(err, fault.NotFound) {
		t.Errorf("before it is made: %v", err)
	}
	must(t, home.Create(p, func(h *home.Home) error { return h.Log.SetTerm(5) }))
	if err := home.Create(p, nil); !fault.Is(err, fault.Exists) {
		t.Errorf("again: %v", err)
	}
	h, err := open(p)
	must(t, err)
	must(t, h.Close())
	h, err = open(p)
	must(t, err)
	if term, err := h.Log.GetUint64([]byte("CurrentTerm")); err != nil || term != 5 {
		t.Errorf("the term is %d, %v", term, err)
	}
}

// TestUnfinishedCreateStartsOver: what an attempt left that did not reach its end is no member's, and is not taken for one.
func TestUnfinishedCreateStartsOver(t *testing.T) {
	p := diskPlace(t)
	failed := errors.New("no space left on device")
	if err := home.Create(p, func(*home.Home) error { return failed }); !errors.Is(err, failed) {
		t.Fatalf("got %v", err)
	}
	if _, err := open(p); !fault.Is(err, fault.NotFound) {
		t.Errorf("half a member: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(p.Dir, "raft.db"), []byte("torn"), 0o600))
	must(t, home.Create(p, nil))
	h, err := open(p)
	must(t, err)
	if last, err := h.Log.LastIndex(); err != nil || last != 0 {
		t.Errorf("the log ends at %d, %v", last, err)
	}
	must(t, h.Close())
}

// TestTheLogFollowsUponTheSnapshot: the newest snapshot counts for the log's growth and for what it may lack, before and after a start.
func TestTheLogFollowsUponTheSnapshot(t *testing.T) {
	p := diskPlace(t)
	create(t, p, 20)
	h, err := open(p)
	must(t, err)
	take(t, h, 15)
	if h.Log.Floor() != 15 || h.Log.Grown() != 0 {
		t.Errorf("grown by %d since %d", h.Log.Grown(), h.Log.Floor())
	}
	must(t, h.Log.DeleteRange(1, 15))
	must(t, h.Close())
	h, err = open(p)
	must(t, err)
	if h.Log.Floor() != 15 || h.Log.Grown() == 0 {
		t.Errorf("after a start: grown by %d since %d", h.Log.Grown(), h.Log.Floor())
	}
	must(t, h.Log.DeleteRange(16, 16))
	must(t, h.Close())
	if _, err := open(p); !fault.Is(err, fault.Corrupt) {
		t.Errorf("an entry past the snapshot is missing: %v", err)
	}
}

// take writes a snapshot.
func take(t *testing.T, h *home.Home, index uint64) {
	t.Helper()
	k, err := h.Snapshots.Create(1, index, 2, raft.Configuration{}, 1, nil)
	must(t, err)
	_, err = k.Write([]byte("state"))
	must(t, err)
	must(t, k.Close())
}

func TestFilesArePrivate(t *testing.T) {
	p := diskPlace(t)
	must(t, home.Create(p, nil))
	must(t, os.Chmod(p.Dir, 0o755))
	must(t, os.Chmod(filepath.Join(p.Dir, "raft.db"), 0o644))
	h, err := open(p)
	must(t, err)
	take(t, h, 5)
	must(t, h.Close())
	must(t, filepath.Walk(p.Dir, func(path string, st os.FileInfo, err error) error {
		want := os.FileMode(0o600)
		if err == nil && st.IsDir() {
			want = 0o700
		}
		if err == nil && st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, st.Mode().Perm(), want)
		}
		return err
	}))
}
