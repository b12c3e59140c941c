package gpt

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs"
	theirs "github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/farrier-project/farrier/pkg/fault"
)

// memory is a disk in memory.
type memory struct{ b []byte }

func (m memory) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m.b[off:]), nil }
func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }
func (m memory) Size() int64                              { return int64(len(m.b)) }
func (m memory) Sector() int64                            { return 512 }

// table is a disk image of 2 MiB with two partitions, made by go-diskfs, at the start of a larger disk.
func table(t *testing.T, size int) memory {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d")
	d, err := diskfs.Create(path, 2<<20, diskfs.SectorSize512)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Partition(&theirs.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*theirs.Partition{
		{Index: 1, Start: 64, End: 127, Type: theirs.EFISystemPartition, Name: "EFI"},
		{Index: 2, Start: 128, End: 2047, Type: theirs.LinuxFilesystem, Name: "root"}}})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return memory{append(b, make([]byte, size-len(b))...)}
}

// verify has go-diskfs look at the disk.
func verify(t *testing.T, m memory) *theirs.Table {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d")
	if err := os.WriteFile(path, m.b, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(d.Backend, uint64(len(m.b))); err != nil {
		t.Errorf("go-diskfs says: %v", err)
	}
	return table.(*theirs.Table)
}

func TestMoveAndAdd(t *testing.T) {
	m := table(t, 8<<20)
	tab, err := Read(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Fit(m.Size()); err != nil {
		t.Fatal(err)
	}
	start, ok := tab.Free(1<<20, 1<<20)
	if !ok || start != 6<<20 {
		t.Fatalf("free at %d, %v", start, ok)
	}
	added, err := tab.Add("config-2", LinuxFilesystem, start, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Write(m); err != nil {
		t.Fatal(err)
	}
	if err := Check(m); err != nil {
		t.Error(err)
	}
	got := verify(t, m)
	p := got.Partitions[2]
	if p.Name != "config-2" || p.Start != 6<<20/512 || p.End != 7<<20/512-1 || p.Type != theirs.LinuxFilesystem || got.Partitions[0].Name != "EFI" {
		t.Errorf("partitions %+v", got.Partitions)
	}
	again, err := Read(m)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := again.Find("config-2"); !ok || f != added || len(again.Partitions()) != 3 {
		t.Errorf("found %+v, added %+v", f, added)
	}
	if next, ok := again.Free(1<<20, 1<<20); !ok || next != 5<<20 {
		t.Errorf("then free at %d", next)
	}
	if _, ok := again.Free(7<<20, 1<<20); ok {
		t.Error("room that is not there")
	}
}

// Whichever write is the last that arrives, one whole table is left.
func TestCutWrite(t *testing.T) {
	for left := range 5 {
		m := table(t, 8<<20)
		tab, err := Read(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := tab.Fit(m.Size()); err != nil {
			t.Fatal(err)
		}
		if _, err := tab.Add("x", LinuxFilesystem, 4<<20, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := tab.Write(&cutting{m, left}); (err == nil) != (left >= 5) {
			t.Errorf("%d writes: %v", left, err)
		}
		if got, err := Read(m); err != nil || len(got.Partitions()) < 2 {
			t.Errorf("after %d writes: %v", left, err)
		}
	}
}

type cutting struct {
	memory
	left int
}

func (c *cutting) WriteAt(p []byte, off int64) (int, error) {
	if c.left == 0 {
		return 0, fault.New(fault.Unavailable, "write", "cut")
	}
	c.left--
	return c.memory.WriteAt(p, off)
}

func TestDamaged(t *testing.T) {
	m := table(t, 2<<20)
	m.b[512+60] ^= 1 // the primary header
	tab, err := Read(m)
	if err != nil || len(tab.Partitions()) != 2 {
		t.Fatalf("the backup was not read: %v", err)
	}
	if err := tab.Fit(m.Size()); err != nil {
		t.Fatal(err)
	}
	if err := tab.Write(m); err != nil {
		t.Fatal(err)
	}
	verify(t, m)
	m.b[1024+5] ^= 1      // primary entries
	m.b[len(m.b)-40] ^= 1 // backup header's sector, past the header: nothing
	if err := Check(m); !fault.Is(err, fault.Corrupt) {
		t.Errorf("check: %v", err)
	}
	m.b[len(m.b)-512+60] ^= 1
	if _, err := Read(m); !fault.Is(err, fault.Corrupt) {
		t.Errorf("both damaged: %v", err)
	}
	if _, err := Read(memory{make([]byte, 1<<20)}); !fault.Is(err, fault.NotFound) {
		t.Errorf("none: %v", err)
	}
	if _, err := Read(memory{make([]byte, 512)}); !fault.Is(err, fault.NotFound) {
		t.Errorf("tiny: %v", err)
	}
	small := table(t, 2<<20)
	tab, err = Read(small)
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Fit(1 << 20); !fault.Is(err, fault.Invalid) {
		t.Errorf("too small: %v", err)
	}
}

func TestFull(t *testing.T) {
	m := table(t, 8<<20)
	tab, err := Read(m)
	if err != nil {
		t.Fatal(err)
	}
	for range 126 {
		if _, err := tab.Add("p", LinuxFilesystem, 4<<20, 512); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tab.Add("p", LinuxFilesystem, 4<<20, 512); !fault.Is(err, fault.TooLarge) {
		t.Errorf("full: %v", err)
	}
	tab.Remove(3)
	if p, err := tab.Add("q", LinuxFilesystem, 4<<20, 512); err != nil || p.Number != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("EFI PART"))
	f.Fuzz(func(t *testing.T, header []byte) {
		m := memory{make([]byte, 64<<10)}
		copy(m.b[512:1024], header)
		if tab, err := Read(m); err == nil {
			tab.Partitions()
		}
	})
}
