package mbr

import (
	"encoding/binary"
	"io"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Disk is what a table is on; Span of ramdisk-agent/disk is one.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
	Sector() int64
}

const (
	tableAt   = 446
	entrySize = 16
	slots     = 4
	maxSector = 1 << 32 // what an entry can address
)

// Types of partitions.
const (
	Linux      = 0x83
	protective = 0xee // the table is a GPT's
)

// Partition is one used entry; Start and Size are bytes.
type Partition struct {
	Number      int // 1 to 4
	Type        byte
	Start, Size int64
}

// Table is sector 0 of a disk, boot code and all.
type Table struct {
	record     [512]byte
	size, unit int64
}

// Read reads the table of a disk. A disk without any answers fault.NotFound: also one whose first sector is a file
// system's boot sector, which has the same signature. A record that only protects a GPT is fault.Corrupt here: read the GPT.
func Read(d Disk) (*Table, error) {
	t := &Table{size: d.Size(), unit: d.Sector()}
	if _, err := d.ReadAt(t.record[:], 0); err != nil {
		return nil, fault.Wrap("read MBR", err)
	}
	none := fault.New(fault.NotFound, "read MBR", "no partition table in sector 0")
	if t.record[510] != 0x55 || t.record[511] != 0xaa {
		return nil, none
	}
	for n := 1; n <= slots; n++ {
		e := t.entry(n)
		if e[0]&0x7f != 0 {
			return nil, none
		}
		switch {
		case e[4] == protective:
			return nil, fault.New(fault.Corrupt, "read MBR", "it protects a GPT that is not there")
		case e[4] != 0 && (lba(e, 8) == 0 || lba(e, 12) == 0):
			return nil, none
		}
	}
	if len(t.Partitions()) == 0 {
		return nil, none
	}
	return t, nil
}

func lba(e []byte, at int) int64 { return int64(binary.LittleEndian.Uint32(e[at:])) }

func (t *Table) entry(number int) []byte {
	return t.record[tableAt+(number-1)*entrySize:][:entrySize]
}

// Partitions are the used entries in order. An extended partition is one, as large as all that it holds.
func (t *Table) Partitions() []Partition {
	var out []Partition
	for n := 1; n <= slots; n++ {
		if e := t.entry(n); e[4] != 0 {
			out = append(out, Partition{Number: n, Type: e[4], Start: lba(e, 8) * t.unit, Size: lba(e, 12) * t.unit})
		}
	}
	return out
}

// Remove clears an entry.
func (t *Table) Remove(number int) { clear(t.entry(number)) }

// Free is the highest free range of at least size bytes that an entry can address, start a multiple of align. The first
// align bytes, where boot loaders keep their second stage, are not free.
func (t *Table) Free(size, align int64) (start int64, ok bool) {
	end := min(t.size, maxSector*t.unit)
	for {
		start = (end - size) / align * align
		if end-size < align {
			return 0, false
		}
		hit := int64(-1)
		for _, p := range t.Partitions() {
			if p.Start < start+size && start < p.Start+p.Size {
				hit = p.Start
			}
		}
		if hit < 0 {
			return start, true
		}
		end = hit
	}
}

// Add makes a primary partition in the first unused entry; fault.TooLarge when all four are used.
func (t *Table) Add(kind byte, start, size int64) (Partition, error) {
	for n := 1; n <= slots; n++ {
		e := t.entry(n)
		if e[4] != 0 {
			continue
		}
		clear(e)
		beyond := []byte{0xfe, 0xff, 0xff} // cylinder, head and sector of what they cannot address
		copy(e[1:], beyond)
		e[4] = kind
		copy(e[5:], beyond)
		binary.LittleEndian.PutUint32(e[8:], uint32(start/t.unit))
		binary.LittleEndian.PutUint32(e[12:], uint32(size/t.unit))
		return Partition{Number: n, Type: kind, Start: start, Size: size}, nil
	}
	return Partition{}, fault.New(fault.TooLarge, "add partition", "all %d primary partitions are used", slots)
}

// Write writes the record, in one sector.
func (t *Table) Write(d Disk) error {
	_, err := d.WriteAt(t.record[:], 0)
	return fault.Wrap("write MBR", err)
}
