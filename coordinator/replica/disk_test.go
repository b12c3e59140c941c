package replica

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
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/logstore"
	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
	"github.com/farrier-project/farrier/pkg/fault"
)

func diskConfig(t *testing.T) Config {
	t.Helper()
	return Config{Cluster: testCluster, Member: "c1", Dir: filepath.Join(t.TempDir(), "data"), Advertise: "127.0.0.1:7601"}
}

// openChecked opens a member's log as Open does, up to raft.
func openChecked(cfg Config) (*logstore.Store, *disk, error) {
	d, err := openDisk(cfg)
	if err != nil {
		return nil, nil, err
	}
	s := logstore.New(logstore.Options{Cluster: cfg.Cluster, Member: cfg.Member, Latch: fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}),
		File: d.path, Logs: d.bolt, Stable: d.bolt})
	if err := s.Verify(0); err != nil {
		return nil, nil, errors.Join(err, d.close())
	}
	return s, d, nil
}

// fillLog writes entries up to the index; their data is a function of it.
func fillLog(t *testing.T, cfg Config, last uint64) {
	t.Helper()
	s, d, err := openChecked(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetTerm(3); err != nil {
		t.Fatal(err)
	}
	for i := uint64(3); i <= last; i += 50 {
		var logs []*raft.Log
		for k := i; k < i+50 && k <= last; k++ {
			logs = append(logs, &raft.Log{Index: k, Term: 2, Type: raft.LogCommand, Data: entryData(k), AppendedAt: time.Unix(int64(k), 7)})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

func entryData(i uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, i*0x9e3779b97f4a7c15), int(5+i%40))
}

// TestByteFlips damages a closed log file, one bit at a time: the member either refuses to open, naming the file and
// the way out, or reads exactly what was written. Nothing panics, nothing lasts.
func TestByteFlips(t *testing.T) {
	cfg := diskConfig(t)
	if err := Bootstrap(cfg, initCommand()); err != nil {
		t.Fatal(err)
	}
	const last = 200
	fillLog(t, cfg, last)
	path := filepath.Join(cfg.Dir, logFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
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
		s, d, err := openChecked(cfg)
		if err != nil {
			refused++
			checkAdvice(t, err, path)
			continue
		}
		same++
		checkWhole(t, s, last, at)
		if err := d.close(); err != nil {
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
	for i := uint64(3); i <= last; i++ {
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
	cfg := diskConfig(t)
	if err := Bootstrap(cfg, initCommand()); err != nil {
		t.Fatal(err)
	}
	fillLog(t, cfg, 400)
	path := filepath.Join(cfg.Dir, logFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
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
		s, d, err := openChecked(cfg)
		if err != nil {
			checkAdvice(t, err, path)
			continue
		}
		checkWhole(t, s, 400, 0)
		if err := d.close(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// failing fails from a given call on.
type failing struct {
	raft.LogStore
	raft.StableStore
	mu  sync.Mutex
	err error
}

func (f *failing) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failing) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

func (f *failing) StoreLogs(l []*raft.Log) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return f.LogStore.StoreLogs(l)
}

func TestBootstrapOnce(t *testing.T) {
	cfg := diskConfig(t)
	must(t, Bootstrap(cfg, initCommand()))
	for name, err := range map[string]error{"Bootstrap": Bootstrap(cfg, initCommand()), "Join": Join(cfg)} {
		if !fault.Is(err, fault.Exists) {
			t.Errorf("%s again: %v", name, err)
		}
	}
	other := cfg
	other.Member = "c2"
	if _, err := openDisk(other); !fault.Is(err, fault.Invalid) {
		t.Errorf("another member's directory: %v", err)
	}
	if _, err := openDisk(diskConfig(t)); !fault.Is(err, fault.NotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	_, d, err := openChecked(cfg)
	must(t, err)
	if _, err := openDisk(cfg); !fault.Is(err, fault.Busy) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, d.close())
}

func TestUnfinishedBootstrapStartsOver(t *testing.T) {
	cfg := diskConfig(t)
	must(t, Bootstrap(cfg, initCommand()))
	must(t, os.Remove(filepath.Join(cfg.Dir, memberFile)))
	must(t, os.WriteFile(filepath.Join(cfg.Dir, logFile), []byte("torn"), 0o600))
	must(t, Bootstrap(cfg, initCommand()))
	_, d, err := openChecked(cfg)
	must(t, err)
	must(t, d.close())
}

func TestFilesArePrivate(t *testing.T) {
	cfg := diskConfig(t)
	must(t, Bootstrap(cfg, initCommand()))
	must(t, os.Chmod(cfg.Dir, 0o755))
	must(t, os.Chmod(filepath.Join(cfg.Dir, logFile), 0o644))
	_, d, err := openChecked(cfg)
	must(t, err)
	snaps, err := snapshot.Open(d.snapshots, fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}))
	must(t, err)
	k, err := snaps.Create(1, 5, 2, raft.Configuration{}, 1, nil)
	must(t, err)
	must(t, k.Close())
	must(t, d.close())
	must(t, filepath.Walk(cfg.Dir, func(path string, st os.FileInfo, err error) error {
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
