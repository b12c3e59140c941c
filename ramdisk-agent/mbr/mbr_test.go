package mbr

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs"
	theirs "github.com/diskfs/go-diskfs/partition/mbr"

	"github.com/farrier-project/farrier/pkg/fault"
)

// memory is a disk in memory.
type memory struct{ b []byte }

func (m memory) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m.b[off:]), nil }
func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }
func (m memory) Size() int64                              { return int64(len(m.b)) }
func (m memory) Sector() int64                            { return 512 }

// made is a disk of 8 MiB with primary partitions of 1 MiB from 1 MiB on, made by go-diskfs.
func made(t *testing.T, partitions int) memory {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d")
	d, err := diskfs.Create(path, 8<<20, diskfs.SectorSize512)
	if err != nil {
		t.Fatal(err)
	}
	table := &theirs.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512}
	for i := range partitions {
		table.Partitions = append(table.Partitions, &theirs.Partition{Bootable: i == 0, Type: theirs.Linux, Start: uint32(1+i) * 2048, Size: 2048})
	}
	if err := d.Partition(table); err != nil {
		t.Fatal(err)
	}
	d.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, "boot code")
	return memory{b}
}

func TestAdd(t *testing.T) {
	m := made(t, 2)
	tab, err := Read(m)
	if err != nil {
		t.Fatal(err)
	}
	start, ok := tab.Free(1<<20, 1<<20)
	if !ok || start != 7<<20 {
		t.Fatalf("free at %d, %v", start, ok)
	}
	p, err := tab.Add(Linux, start, 1<<20)
	if err != nil || p.Number != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := tab.Write(m); err != nil {
		t.Fatal(err)
	}
	if string(m.b[:9]) != "boot code" {
		t.Error("the boot code is gone")
	}
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
	got := table.(*theirs.Table).Partitions
	if got[2].Start != 7*2048 || got[2].Size != 2048 || got[2].Type != theirs.Linux || got[0].Start != 2048 || !got[0].Bootable {
		t.Errorf("partitions %+v, %+v, %+v", got[0], got[1], got[2])
	}
	again, err := Read(m)
	if err != nil || len(again.Partitions()) != 3 || again.Partitions()[2] != p {
		t.Errorf("read again: %+v, %v", again.Partitions(), err)
	}
	if next, ok := again.Free(1<<20, 1<<20); !ok || next != 6<<20 {
		t.Errorf("then free at %d", next)
	}
	if _, ok := again.Free(5<<20, 1<<20); ok {
		t.Error("room that is not there")
	}
	again.Remove(3)
	if start, ok := again.Free(1<<20, 1<<20); !ok || start != 7<<20 {
		t.Errorf("after it was removed: free at %d", start)
	}
}

func TestFull(t *testing.T) {
	tab, err := Read(made(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Add(Linux, 6<<20, 1<<20); !fault.Is(err, fault.TooLarge) {
		t.Errorf("a fifth primary partition: %v", err)
	}
}

// An entry has 32 bits for a sector: what lies behind is not offered.
func TestLargeDisk(t *testing.T) {
	tab, err := Read(made(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	tab.size = 8 << 40
	if start, ok := tab.Free(64<<20, 1<<20); !ok || start != 2<<40-64<<20 {
		t.Errorf("free at %d", start)
	}
}

func TestNoTable(t *testing.T) {
	fat := make([]byte, 1<<20) // a FAT file system without partitions: code and text where the entries would be
	copy(fat, "\xeb\x3c\x90mkfs.fat")
	copy(fat[tableAt:], "This is not a bootable disk.  Please insert a bootable floppy and press any key")
	fat[510], fat[511] = 0x55, 0xaa
	empty := make([]byte, 1<<20)
	empty[510], empty[511] = 0x55, 0xaa
	gpt := made(t, 1).b
	gpt[tableAt+4] = protective
	for name, c := range map[string]struct {
		b    []byte
		kind fault.Kind
	}{
		"zeros": {make([]byte, 1<<20), fault.NotFound}, "boot sector of FAT": {fat, fault.NotFound},
		"no entry": {empty, fault.NotFound}, "protective": {gpt, fault.Corrupt},
	} {
		if _, err := Read(memory{c.b}); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
