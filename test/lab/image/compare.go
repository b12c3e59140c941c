package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// gptSectors is what a GPT of 128 entries takes behind the last usable sector: the entries and the header.
const gptSectors = 33

// CompareDisk tells whether a disk holds the image: every byte from the image's first usable sector to its last is the
// image's, and around it stands a valid GPT with the image's disk id and partitions, its backup on the disk's last
// sector, and at most one partition more, named config-2. It returns the number of bytes that were compared.
func CompareDisk(imagePath, diskPath string) (compared int64, err error) {
	img, imgSize, err := open(imagePath)
	if err != nil {
		return 0, err
	}
	defer img.Close()
	disk, diskSize, err := open(diskPath)
	if err != nil {
		return 0, err
	}
	defer disk.Close()
	want, err := readDisk(img, imgSize)
	if err != nil {
		return 0, fmt.Errorf("image: %w", err)
	}
	got, err := readDisk(disk, diskSize)
	if err != nil {
		return 0, fmt.Errorf("disk: %w", err)
	}
	if err := compareTables(want, got); err != nil {
		return 0, err
	}
	end := (int64(want.last) + 1) * sector
	a, b := make([]byte, chunk), make([]byte, chunk)
	for off := int64(want.first) * sector; off < end; off += chunk {
		n := min(chunk, end-off)
		if err := compareAt(img, disk, off, a[:n], b[:n]); err != nil {
			return compared, err
		}
		compared += n
	}
	return compared, compareMBR(img, disk)
}

func open(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size < (2*gptSectors+2)*sector {
		err = fmt.Errorf("%s is too small for a GPT: %d bytes", path, size)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

func compareTables(want, got *table) error {
	if got.disk != want.disk {
		return fmt.Errorf("the disk's GUID is %x, the image's %x", got.disk, want.disk)
	}
	if len(got.entries) < len(want.entries) {
		return fmt.Errorf("the disk has %d partitions, the image %d", len(got.entries), len(want.entries))
	}
	for i, e := range want.entries {
		if got.entries[i] != e {
			return fmt.Errorf("partition %d is %+v on the disk, %+v in the image", i+1, got.entries[i], e)
		}
	}
	switch extra := got.entries[len(want.entries):]; {
	case len(extra) > 1:
		return fmt.Errorf("the disk has %d partitions more than the image", len(extra))
	case len(extra) == 1 && extra[0].name != "config-2":
		return fmt.Errorf("the disk has a partition %q that the image has not", extra[0].name)
	case len(extra) == 1 && extra[0].first <= want.last:
		return errors.New("config-2 lies inside the image")
	}
	return nil
}

func compareAt(img, disk io.ReaderAt, off int64, a, b []byte) error {
	if _, err := img.ReadAt(a, off); err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	if _, err := disk.ReadAt(b, off); err != nil {
		return fmt.Errorf("read disk: %w", err)
	}
	if bytes.Equal(a, b) {
		return nil
	}
	for i := range a {
		if a[i] != b[i] {
			return fmt.Errorf("byte %d is %#02x on the disk, %#02x in the image", off+int64(i), b[i], a[i])
		}
	}
	return nil
}

// compareMBR compares sector 0 but for the size that its protective entry gives (UEFI 2.10 section 5.2.3).
func compareMBR(img, disk io.ReaderAt) error {
	a, b := make([]byte, sector), make([]byte, sector)
	if _, err := img.ReadAt(a, 0); err != nil {
		return err
	}
	if _, err := disk.ReadAt(b, 0); err != nil {
		return err
	}
	const lastCHS, sectors = 446 + 5, 446 + 12
	for _, s := range [][]byte{a, b} {
		clear(s[lastCHS : lastCHS+3])
		clear(s[sectors : sectors+4])
	}
	if !bytes.Equal(a, b) {
		return errors.New("the master boot record is not the image's")
	}
	return nil
}

// CheckPayload is what booting the disk does on a software machine: it finds the payload partition by the GPT and
// checks the payload against its own checksum.
func CheckPayload(diskPath string) error {
	f, _, err := open(diskPath)
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := readTable(f, 1)
	if err != nil {
		return err
	}
	for _, e := range t.entries {
		if e.name == payloadName {
			return checkPayload(f, int64(e.first)*sector, int64(e.last-e.first+1)*sector)
		}
	}
	return fmt.Errorf("no partition is named %q", payloadName)
}

func checkPayload(r io.ReaderAt, start, size int64) error {
	head := make([]byte, headerBytes)
	if _, err := r.ReadAt(head, start); err != nil {
		return fmt.Errorf("read payload: %w", err)
	}
	rest, ok := bytes.CutPrefix(head, []byte(payloadMagic))
	if !ok {
		return errors.New("the payload partition does not begin with a payload")
	}
	length := binary.BigEndian.Uint64(rest)
	if length > uint64(size-headerBytes) {
		return errors.New("the payload is longer than its partition")
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(r, start+headerBytes, int64(length)), make([]byte, mib)); err != nil {
		return fmt.Errorf("read payload: %w", err)
	}
	if !bytes.Equal(h.Sum(nil), rest[8:8+sha256.Size]) {
		return errors.New("the payload fails its checksum")
	}
	return nil
}
