package steps

import (
	"io"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/gpt"
	"github.com/farrier-project/farrier/ramdisk-agent/iso"
	"github.com/farrier-project/farrier/ramdisk-agent/mbr"
)

const (
	configLabel = "config-2"
	configSize  = 64 * mib // of a new partition; less when the disk has not that much room
	configLeast = mib      // room that an image must leave: more than user data, network data and meta data can have
)

// preview shows a disk as it will be once an image is on it, as far as the image's first chunk tells: what follows the image
// is zeros, the rest of the image cannot be read yet.
type preview struct {
	first []byte // at least a sector
	image int64  // bytes of the image
	info  disk.Info
}

func (h preview) Size() int64   { return h.info.Size }
func (h preview) Sector() int64 { return h.info.Sector }

func (h preview) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	end := off + int64(len(p))
	switch {
	case end <= int64(len(h.first)):
		return copy(p, h.first[off:]), nil
	case int64(len(h.first)) >= h.image:
		if off < int64(len(h.first)) {
			copy(p, h.first[off:])
		}
		return len(p), nil
	case off >= h.image:
		return len(p), nil
	default:
		return 0, io.ErrUnexpectedEOF
	}
}

func (preview) WriteAt([]byte, int64) (int, error) {
	return 0, fault.New(fault.Internal, "check image", "a look at an image does not change it")
}

// checkFit tells, before the first write, whether the image can be used on the disk: its partition table is made for the
// disk's sectors and fits, and a config drive that is needed has a place.
func checkFit(h preview, needDrive bool) error {
	if err := checkTable(h); err != nil {
		return err
	}
	if !needDrive {
		return nil
	}
	_, err := placeDrive(h, configLeast)
	return fault.Wrap("find a place for the config drive", err)
}

func checkTable(h preview) error {
	t, err := gpt.Read(h)
	if err == nil {
		return t.Fit(h.info.Size)
	}
	otherSectors := func(size int64) error {
		return fault.New(fault.Unsupported, "check image", "its partition table is made for sectors of %d bytes, the disk has %d", size, h.info.Sector).
			WithHelp("nothing was written: use an image made for this disk's sectors, or a disk with the image's")
	}
	for _, other := range []int64{512, 4096} {
		var magic [8]byte
		if _, err := h.ReadAt(magic[:], other); err == nil && other != h.info.Sector && string(magic[:]) == "EFI PART" {
			return otherSectors(other)
		}
	}
	m, err := mbr.Read(h)
	if err != nil {
		return nil // no table, or a damaged one: what the image is for is not ours to say
	}
	for _, p := range m.Partitions() {
		end := p.Start + p.Size
		switch {
		case h.info.Sector > 512 && end > h.image && end/h.info.Sector*512 <= h.image:
			return otherSectors(512)
		case end > h.info.Size:
			return fault.New(fault.Invalid, "check image", "partition %d ends at %d, after the disk's %d bytes", p.Number, end, h.info.Size).
				WithHelp("nothing was written: choose a larger disk by the root device hints")
		}
	}
	return nil
}

// drivePlace is where a config drive goes. The partition table is changed after the drive was written.
type drivePlace struct {
	number      int
	start, size int64
	table       interface{ write(d gpt.Disk) error } // nil: the partition is there already
}

type newGPT struct{ t *gpt.Table }

func (n newGPT) write(d gpt.Disk) error { return n.t.Write(d) }

type newMBR struct{ t *mbr.Table }

func (n newMBR) write(d gpt.Disk) error { return n.t.Write(d) }

// placeDrive finds the config drive's partition, or makes room for one at the end of the disk: in a GPT by its name, in an
// MBR by what it holds. fault.Unsupported: the disk has no partition table; TooLarge: it has no room.
func placeDrive(d gpt.Disk, need int64) (drivePlace, error) {
	t, err := gpt.Read(d)
	switch {
	case err == nil:
		return placeInGPT(t, d.Size(), need)
	case !fault.Is(err, fault.NotFound):
		return drivePlace{}, err
	}
	m, err := mbr.Read(d)
	switch {
	case err == nil:
		return placeInMBR(m, d, need)
	case fault.Is(err, fault.NotFound):
		return drivePlace{}, fault.New(fault.Unsupported, "read partition table", "the image has none to put the config drive in").
			WithHelp("deploy an image with a GPT or an MBR, or without user data, network data and meta data")
	default:
		return drivePlace{}, err
	}
}

func placeInGPT(t *gpt.Table, size, need int64) (drivePlace, error) {
	old, found := t.Find(configLabel)
	if found && old.Size >= need && old.Start >= 0 && old.Start+old.Size <= size {
		return drivePlace{number: old.Number, start: old.Start, size: old.Size}, nil
	}
	if found {
		t.Remove(old.Number)
	}
	if err := t.Fit(size); err != nil {
		return drivePlace{}, err
	}
	start, size, err := room(t.Free, need)
	if err != nil {
		return drivePlace{}, err
	}
	p, err := t.Add(configLabel, gpt.LinuxFilesystem, start, size)
	return drivePlace{number: p.Number, start: start, size: size, table: newGPT{t}}, err
}

func placeInMBR(t *mbr.Table, d gpt.Disk, need int64) (drivePlace, error) {
	for _, p := range t.Partitions() {
		if !holdsDrive(d, p.Start) {
			continue
		}
		if p.Size >= need && p.Start+p.Size <= d.Size() {
			return drivePlace{number: p.Number, start: p.Start, size: p.Size}, nil
		}
		t.Remove(p.Number)
	}
	start, size, err := room(t.Free, need)
	if err != nil {
		return drivePlace{}, err
	}
	p, err := t.Add(mbr.Linux, start, size)
	return drivePlace{number: p.Number, start: start, size: size, table: newMBR{t}}, err
}

// holdsDrive tells whether a config drive begins at start: a FAT or an ISO 9660 file system with its label. Both labels stand in
// sectors that a drive written over another, and cut, leaves whole.
func holdsDrive(d gpt.Disk, start int64) bool {
	boot := make([]byte, 512)
	if _, err := d.ReadAt(boot, start); err == nil && boot[510] == 0x55 && boot[511] == 0xaa && labelIs(boot[43:54]) {
		return true
	}
	volume := make([]byte, 72)
	_, err := d.ReadAt(volume, start+iso.DescriptorAt)
	return err == nil && string(volume[1:6]) == "CD001" && labelIs(volume[40:72])
}

func labelIs(b []byte) bool {
	for i := range b {
		want := byte(' ')
		if i < len(configLabel) {
			want = configLabel[i]
		}
		if b[i] != want {
			return false
		}
	}
	return true
}

// room is where a partition for need bytes goes: 64 MiB, halved until there is room.
func room(free func(size, align int64) (int64, bool), need int64) (start, size int64, err error) {
	least := (need + mib - 1) / mib * mib
	for size = max(configSize, least); ; size = max(size/2, least) {
		if start, ok := free(size, mib); ok {
			return start, size, nil
		}
		if size == least {
			return 0, 0, fault.New(fault.TooLarge, "find room", "no %d free bytes after the image's partitions", size).
				WithHelp("use a larger disk, or an image whose partitions leave 1 MiB free at the end")
		}
	}
}
