package gpt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
	"unicode/utf16"

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
	signature  = "EFI PART"
	headerSize = 92
	maxEntries = 1024
	nameAt     = 56 // offset of the UTF-16 name in an entry
	nameLen    = 36 // UTF-16 units
)

// GUID is a GUID as it is on disk: the first three fields little endian.
type GUID [16]byte

// LinuxFilesystem is the type of partitions that hold Linux data: 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
var LinuxFilesystem = GUID{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4} // read-only

// Partition is one used entry; Start and Size are bytes.
type Partition struct {
	Number      int // from 1
	Type, ID    GUID
	Start, Size int64
	Name        string
}

// Table is a table that was read and passed its checksums.
type Table struct {
	header    [headerSize]byte
	entries   []byte
	entrySize int64
	sector    int64
}

// Read reads the primary table, or the backup at the disk's end when the primary is damaged. A disk without any
// answers fault.NotFound.
func Read(d Disk) (*Table, error) {
	t, err := readAt(d, 1)
	if err == nil {
		return t, nil
	}
	if b, berr := readAt(d, d.Size()/d.Sector()-1); berr == nil {
		return b, nil
	}
	return nil, err
}

func readAt(d Disk, lba int64) (*Table, error) {
	t := &Table{sector: d.Sector()}
	if lba < 1 || (lba+1)*t.sector > d.Size() {
		return nil, fault.New(fault.NotFound, "read partition table", "the disk is too small for one")
	}
	if _, err := d.ReadAt(t.header[:], lba*t.sector); err != nil {
		return nil, fault.Wrap("read partition table", err)
	}
	if string(t.header[:8]) != signature {
		return nil, fault.New(fault.NotFound, "read partition table", "no GPT at sector %d", lba)
	}
	size, crc := t.u32(12), t.u32(16)
	if size < headerSize || int64(size) > t.sector {
		return nil, corrupt("header of %d bytes", size)
	}
	full := make([]byte, size)
	if _, err := d.ReadAt(full, lba*t.sector); err != nil {
		return nil, fault.Wrap("read partition table", err)
	}
	clear(full[16:20])
	if crc32.ChecksumIEEE(full) != crc {
		return nil, corrupt("the header at sector %d fails its checksum", lba)
	}
	n, at := int64(t.u32(80)), int64(t.u64(72))
	t.entrySize = int64(t.u32(84))
	if n < 1 || n > maxEntries || t.entrySize < 128 || t.entrySize > 4096 || t.entrySize%128 != 0 {
		return nil, corrupt("%d entries of %d bytes", n, t.entrySize)
	}
	t.entries = make([]byte, n*t.entrySize)
	if at < 1 || at > d.Size()/t.sector || at*t.sector+int64(len(t.entries)) > d.Size() {
		return nil, corrupt("entries at sector %d", at)
	}
	if _, err := d.ReadAt(t.entries, at*t.sector); err != nil {
		return nil, fault.Wrap("read partition table", err)
	}
	if crc32.ChecksumIEEE(t.entries) != t.u32(88) {
		return nil, corrupt("the entries at sector %d fail their checksum", at)
	}
	return t, nil
}

func corrupt(format string, args ...any) error {
	return fault.New(fault.Corrupt, "read partition table", format, args...)
}

func (t *Table) u32(at int) uint32      { return binary.LittleEndian.Uint32(t.header[at:]) }
func (t *Table) u64(at int) uint64      { return binary.LittleEndian.Uint64(t.header[at:]) }
func (t *Table) set64(at int, v uint64) { binary.LittleEndian.PutUint64(t.header[at:], v) }
func (t *Table) entry(number int) []byte {
	return t.entries[int64(number-1)*t.entrySize:][:t.entrySize]
}
func (t *Table) slots() int { return int(int64(len(t.entries)) / t.entrySize) }

// arraySectors is how many sectors the entries fill.
func (t *Table) arraySectors() int64 {
	return (int64(len(t.entries)) + t.sector - 1) / t.sector
}

// Partitions are the used entries in order.
func (t *Table) Partitions() []Partition {
	var out []Partition
	for n := 1; n <= t.slots(); n++ {
		e := t.entry(n)
		if GUID(e[:16]) == (GUID{}) {
			continue
		}
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		out = append(out, Partition{Number: n, Type: GUID(e[:16]), ID: GUID(e[16:32]),
			Start: int64(first) * t.sector, Size: (int64(last) - int64(first) + 1) * t.sector, Name: name(e)})
	}
	return out
}

func name(e []byte) string {
	units := make([]uint16, 0, nameLen)
	for i := range nameLen {
		u := binary.LittleEndian.Uint16(e[nameAt+2*i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// Find is the partition with the name.
func (t *Table) Find(name string) (Partition, bool) {
	for _, p := range t.Partitions() {
		if p.Name == name {
			return p, true
		}
	}
	return Partition{}, false
}

// Remove clears an entry.
func (t *Table) Remove(number int) { clear(t.entry(number)) }

// Fit tells the table the size of its disk in bytes: backup header and last usable sector move to the end. It is
// Invalid when a partition would not fit.
func (t *Table) Fit(size int64) error {
	last := size/t.sector - 1
	usable := last - t.arraySectors() - 1
	for _, p := range t.Partitions() {
		if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > (usable+1)*t.sector {
			return fault.New(fault.Invalid, "fit partition table", "partition %d (%q) ends after the last usable sector %d", p.Number, p.Name, usable)
		}
	}
	if t.u64(24) != 1 { // it was the backup that could be read
		t.set64(24, 1)
		t.set64(72, 2)
	}
	t.set64(32, uint64(last))
	t.set64(48, uint64(usable))
	return nil
}

// Free is the highest free range of at least size bytes, start a multiple of align, that ends at or before the last usable sector.
func (t *Table) Free(size, align int64) (start int64, ok bool) {
	end := (int64(t.u64(48)) + 1) * t.sector
	first := int64(t.u64(40)) * t.sector
	for {
		start = (end - size) / align * align
		if end-size < first || start < first {
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

// Add makes a partition in the first unused entry. Its GUID follows from the disk's GUID, name and start, so that
// the same step makes the same table.
func (t *Table) Add(name string, kind GUID, start, size int64) (Partition, error) {
	for n := 1; n <= t.slots(); n++ {
		e := t.entry(n)
		if GUID(e[:16]) != (GUID{}) {
			continue
		}
		seed := binary.LittleEndian.AppendUint64(append(append([]byte(nil), t.header[56:72]...), name...), uint64(start))
		id := sha256.Sum256(seed)
		id[7], id[8] = id[7]&0x0f|0x80, id[8]&0x3f|0x80 // version 8, variant 1 (RFC 9562)
		clear(e)
		copy(e[:16], kind[:])
		copy(e[16:32], id[:16])
		binary.LittleEndian.PutUint64(e[32:], uint64(start/t.sector))
		binary.LittleEndian.PutUint64(e[40:], uint64((start+size)/t.sector-1))
		for i, u := range utf16.Encode([]rune(name)) {
			if i < nameLen {
				binary.LittleEndian.PutUint16(e[nameAt+2*i:], u)
			}
		}
		return Partition{Number: n, Type: kind, ID: GUID(id[:16]), Start: start, Size: size, Name: name}, nil
	}
	return Partition{}, fault.New(fault.TooLarge, "add partition", "all %d entries are used", t.slots())
}

// Write writes backup entries, backup header, primary entries, primary header and the protective MBR's size, in that
// order: whenever it is cut, one whole table is left. Fit comes before it.
func (t *Table) Write(d Disk) error {
	last := int64(t.u64(32))
	binary.LittleEndian.PutUint32(t.header[88:], crc32.ChecksumIEEE(t.entries))
	binary.LittleEndian.PutUint32(t.header[12:], headerSize)
	primary, backup := t.header, t.header
	entriesAt := last - t.arraySectors()
	binary.LittleEndian.PutUint64(backup[24:], uint64(last))
	binary.LittleEndian.PutUint64(backup[32:], 1)
	binary.LittleEndian.PutUint64(backup[72:], uint64(entriesAt))
	for _, w := range []struct {
		p  []byte
		at int64
	}{{t.entries, entriesAt}, {t.headerSector(backup), last}, {t.entries, int64(t.u64(72))}, {t.headerSector(primary), 1}} {
		if _, err := d.WriteAt(w.p, w.at*t.sector); err != nil {
			return fault.Wrap("write partition table", err)
		}
	}
	return t.protect(d, last)
}

func (t *Table) headerSector(h [headerSize]byte) []byte {
	out := make([]byte, t.sector)
	clear(h[16:20])
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:]))
	copy(out, h[:])
	return out
}

// protect sets the size of the protective entry (type EEh) of the MBR, if that is what the MBR holds.
func (t *Table) protect(d Disk, last int64) error {
	mbr := make([]byte, 512)
	if _, err := d.ReadAt(mbr, 0); err != nil {
		return fault.Wrap("read MBR", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil
	}
	for at := 446; at < 510; at += 16 {
		if mbr[at+4] != 0xee {
			continue
		}
		old := bytes.Clone(mbr[at+12 : at+16])
		binary.LittleEndian.PutUint32(mbr[at+12:], uint32(min(last-int64(binary.LittleEndian.Uint32(mbr[at+8:]))+1, 0xffffffff)))
		if bytes.Equal(old, mbr[at+12:at+16]) {
			return nil
		}
		_, err := d.WriteAt(mbr, 0)
		return fault.Wrap("write protective MBR", err)
	}
	return nil
}

// Check reads both copies and wants each to pass its checksums and to point at the other.
func Check(d Disk) error {
	primary, err := readAt(d, 1)
	if err != nil {
		return err
	}
	last := d.Size()/d.Sector() - 1
	backup, err := readAt(d, last)
	if err != nil {
		return err
	}
	if primary.u64(32) != uint64(last) || backup.u64(32) != 1 || !bytes.Equal(primary.entries, backup.entries) {
		return corrupt("the copies at sectors 1 and %d do not belong together", last)
	}
	return nil
}
