package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// table is a GPT as it stands on a disk (UEFI 2.10 section 5.3), read without the library that writes it.
type table struct {
	header, backup uint64 // LBA of this header and of the other
	first, last    uint64 // usable LBAs
	disk           [16]byte
	entries        []entry
	raw            []byte // the whole array
}

type entry struct {
	kind, id    [16]byte
	first, last uint64
	attributes  uint64
	name        string
}

const maxEntries = 1024

func readTable(r io.ReaderAt, lba uint64) (*table, error) {
	h := make([]byte, sector)
	if _, err := r.ReadAt(h, int64(lba)*sector); err != nil {
		return nil, fmt.Errorf("read GPT header at sector %d: %w", lba, err)
	}
	if string(h[:8]) != "EFI PART" {
		return nil, fmt.Errorf("sector %d holds no GPT header", lba)
	}
	size := binary.LittleEndian.Uint32(h[12:])
	if size < 92 || size > sector {
		return nil, fmt.Errorf("GPT header at sector %d has a size of %d", lba, size)
	}
	sum := binary.LittleEndian.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:size]) != sum {
		return nil, fmt.Errorf("GPT header at sector %d fails its checksum", lba)
	}
	t := &table{
		header: binary.LittleEndian.Uint64(h[24:]), backup: binary.LittleEndian.Uint64(h[32:]),
		first: binary.LittleEndian.Uint64(h[40:]), last: binary.LittleEndian.Uint64(h[48:]), disk: [16]byte(h[56:72]),
	}
	if t.header != lba {
		return nil, fmt.Errorf("GPT header at sector %d says it is at %d", lba, t.header)
	}
	count, each := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:])
	if count > maxEntries || each != 128 {
		return nil, fmt.Errorf("GPT at sector %d has %d entries of %d bytes", lba, count, each)
	}
	t.raw = make([]byte, count*each)
	if _, err := r.ReadAt(t.raw, int64(binary.LittleEndian.Uint64(h[72:]))*sector); err != nil {
		return nil, fmt.Errorf("read GPT entries: %w", err)
	}
	if crc32.ChecksumIEEE(t.raw) != binary.LittleEndian.Uint32(h[88:]) {
		return nil, fmt.Errorf("the GPT entries of sector %d fail their checksum", lba)
	}
	for b := range slices.Chunk(t.raw, 128) {
		if [16]byte(b) == ([16]byte{}) {
			continue
		}
		e := entry{kind: [16]byte(b[:16]), id: [16]byte(b[16:32]), first: binary.LittleEndian.Uint64(b[32:]),
			last: binary.LittleEndian.Uint64(b[40:]), attributes: binary.LittleEndian.Uint64(b[48:])}
		var name []uint16
		for i := 56; i < 128; i += 2 {
			if c := binary.LittleEndian.Uint16(b[i:]); c != 0 {
				name = append(name, c)
			}
		}
		e.name = string(utf16.Decode(name))
		t.entries = append(t.entries, e)
	}
	return t, nil
}

// readDisk reads both tables of a disk and checks that they agree and that the backup stands on the last sector.
func readDisk(r io.ReaderAt, size int64) (*table, error) {
	t, err := readTable(r, 1)
	if err != nil {
		return nil, err
	}
	end := uint64(size/sector) - 1
	if t.backup != end {
		return nil, fmt.Errorf("the GPT header says the backup is at sector %d, the last sector is %d", t.backup, end)
	}
	b, err := readTable(r, end)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	switch {
	case b.backup != 1:
		return nil, fmt.Errorf("the backup GPT says the primary is at sector %d", b.backup)
	case b.disk != t.disk || b.first != t.first || b.last != t.last || !bytes.Equal(b.raw, t.raw):
		return nil, errors.New("the two GPTs differ")
	}
	for i, e := range t.entries {
		if e.first < t.first || e.last > t.last || e.first > e.last {
			return nil, fmt.Errorf("partition %d (%s) lies outside the usable sectors", i+1, e.name)
		}
		for _, o := range t.entries[:i] {
			if e.first <= o.last && o.first <= e.last {
				return nil, fmt.Errorf("partitions %s and %s overlap", o.name, e.name)
			}
		}
	}
	return t, nil
}
