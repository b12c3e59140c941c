package journal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func contents(t *testing.T, j *Journal, table Table) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := j.Each(table, func(k string, v []byte) error { all[k] = string(v); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestIncarnationRisesAndIDStays(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	id := first.ID()
	if first.Incarnation() != 1 {
		t.Fatalf("first incarnation is %d, want 1", first.Incarnation())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	defer second.Close()
	if second.Incarnation() != 2 || second.ID() != id {
		t.Fatalf("second open: incarnation %d, same id %v; want 2, true", second.Incarnation(), second.ID() == id)
	}
}

func TestDirectoryBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if _, err := Open(dir); !fault.Is(err, fault.Locked) {
		t.Fatalf("second open of a journal in use: %v, want locked", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
}

// A copy of the file, taken while the journal is open and without closing it, is what a killed process leaves.
func TestWhatWasWaitedForSurvivesAKill(t *testing.T) {
	dir, after := t.TempDir(), t.TempDir()
	j := open(t, dir)
	defer j.Close()
	if err := j.Put(Entry{Runs, "a", []byte("one")}, Entry{Boots, "a", []byte("boot")}).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := j.Put(Entry{Runs, "a", []byte("two")}, Entry{Boots, "a", nil}).Wait(); err != nil {
		t.Fatal(err)
	}
	j.Put(Entry{Runs, "b", []byte("nobody waits")})
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(after, fileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	k := open(t, after)
	defer k.Close()
	if got := contents(t, k, Runs); len(got) != 1 || got["a"] != "two" {
		t.Errorf("runs after the kill: %v, want a=two only", got)
	}
	if got := contents(t, k, Boots); len(got) != 0 {
		t.Errorf("boots after the kill: %v, want none", got)
	}
}

func TestCloseWritesWhatNobodyWaitsFor(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	j.Put(Entry{Leases, "52:54:00:00:00:01", []byte("10.0.0.9")})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	k := open(t, dir)
	defer k.Close()
	if got := contents(t, k, Leases); got["52:54:00:00:00:01"] != "10.0.0.9" {
		t.Fatalf("leases: %v", got)
	}
}

func TestDamagedRecordIsNamed(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if err := j.Put(Entry{Runs, "node-1", []byte("the outcome of a step")}).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("the outcome of a step")); n == 0 {
		t.Fatal("the record is not in the file")
	}
	data = bytes.ReplaceAll(data, []byte("the outcome of a step"), []byte("the outcome of a stop"))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	if !fault.Is(err, fault.Corrupt) || !bytes.Contains([]byte(err.Error()), []byte("runs/node-1")) {
		t.Fatalf("open after damage: %v, want corrupt with the record's name", err)
	}
	if err := open(t, t.TempDir()).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConcurrentWritersShareBatches(t *testing.T) {
	j := open(t, t.TempDir())
	defer j.Close()
	const writers, each = 16, 8
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := j.Put(Entry{Runs, fmt.Sprint(w), []byte(fmt.Sprint(i))}).Wait(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := contents(t, j, Runs)
	for w := range writers {
		if got[fmt.Sprint(w)] != fmt.Sprint(each-1) {
			t.Errorf("writer %d: last value is %q", w, got[fmt.Sprint(w)])
		}
	}
}

func TestFirstFailureLatches(t *testing.T) {
	j := open(t, t.TempDir())
	j.db.Close() // the disk is gone
	defer j.lock.Close()
	first := j.Put(Entry{Runs, "a", []byte("x")}).Wait()
	if first == nil {
		t.Fatal("written to a closed file")
	}
	j.commit = func([]Entry) error { return nil } // and back
	if err := j.Put(Entry{Runs, "a", []byte("x")}).Wait(); err == nil {
		t.Error("a write after a failed one succeeded")
	}
	if err := j.Flush(); err == nil {
		t.Error("Flush with nothing to write says nothing of the failure")
	}
}

// TestRefusedRecordHarmsNoOther: a record that is too large, or without a key, took every later write with it.
func TestRefusedRecordHarmsNoOther(t *testing.T) {
	j := open(t, t.TempDir())
	defer j.Close()
	before := j.Put(Entry{Runs, "before", []byte("x")})
	for name, tt := range map[string]struct {
		e    Entry
		kind fault.Kind
	}{
		"no table":  {Entry{0, "a", []byte("x")}, fault.Invalid},
		"no key":    {Entry{Runs, "", []byte("x")}, fault.Invalid},
		"long key":  {Entry{Runs, string(make([]byte, MaxKey+1)), []byte("x")}, fault.Invalid},
		"too large": {Entry{Runs, "a", make([]byte, MaxValue+1)}, fault.TooLarge},
	} {
		if err := j.Put(Entry{Runs, "beside", []byte("x")}, tt.e).Wait(); !fault.Is(err, tt.kind) {
			t.Errorf("%s: %v, want %s", name, err, tt.kind)
		}
	}
	if err := j.Put(Entry{Runs, "after", []byte("x")}).Wait(); err != nil {
		t.Error(err)
	}
	if err := before.Wait(); err != nil {
		t.Error(err)
	}
	if got := contents(t, j, Runs); len(got) != 2 || got["before"] != "x" || got["after"] != "x" {
		t.Errorf("on disk: %v", got)
	}
}
