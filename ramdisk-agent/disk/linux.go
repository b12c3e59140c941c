package disk

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/pkg/fault"
)

const maxAttr = 4096 // bytes read of one file below /sys

// Linux is a Host of real block devices, found below /sys/class/block.
type Linux struct{ root string }

// NewLinux is the host whose /sys and /dev are below root: "/" outside of tests.
func NewLinux(root string) *Linux { return &Linux{root: root} }

// Disks implements Host. It leaves out partitions, virtual devices (loop, ram, device mapper, software RAID), optical and
// floppy drives, and the hidden paths of NVMe multipath.
func (l *Linux) Disks() ([]Info, error) {
	class := filepath.Join(l.root, "sys/class/block")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list disks", "%w", err)
	}
	var out []Info
	for _, e := range entries {
		if info, ok := l.info(filepath.Join(class, e.Name()), e.Name()); ok {
			out = append(out, info)
		}
	}
	identify(out)
	return out, nil
}

func (l *Linux) info(dir, name string) (Info, bool) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || strings.Contains(real, "/devices/virtual/block/") || exists(filepath.Join(dir, "partition")) {
		return Info{}, false
	}
	for _, prefix := range []string{"loop", "ram", "zram", "sr", "fd", "nbd", "mtdblock"} {
		if strings.HasPrefix(name, prefix) {
			return Info{}, false
		}
	}
	sectors := number(dir, "size") // always in units of 512
	if sectors == 0 || number(dir, "hidden") == 1 {
		return Info{}, false
	}
	info := Info{
		Name: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/"), ByPath: byPath(real),
		Vendor: attr(dir, "device/vendor"), Model: attr(dir, "device/model"),
		Size: sectors * 512, Sector: max(number(dir, "queue/logical_block_size"), 512),
		Rotational: number(dir, "queue/rotational") == 1, Discard: number(dir, "queue/discard_max_bytes") > 0,
		ReadOnly: number(dir, "ro") == 1, Removable: number(dir, "removable") == 1,
	}
	if strings.HasPrefix(info.Vendor, "0x") { // a PCI number (virtio), not a name
		info.Vendor = ""
	}
	info.Serial = firstOf(attr(dir, "serial"), attr(dir, "device/serial"), vpdSerial(dir))
	wwid := firstOf(attr(dir, "wwid"), attr(dir, "device/wwid"))
	switch {
	case strings.HasPrefix(wwid, "naa."):
		info.WWN = "0x" + wwid[4:]
	case strings.HasPrefix(wwid, "eui."), strings.HasPrefix(wwid, "uuid."):
		info.EUI = wwid
	case strings.HasPrefix(wwid, "t10.") && info.Serial == "":
		if f := strings.Fields(wwid); len(f) > 1 { // t10.ATA     MODEL     SERIAL
			info.Serial = f[len(f)-1]
		}
	}
	return info, true
}

// Undriven implements Host: PCI devices of base class 01h (mass storage) without a driver.
func (l *Linux) Undriven() ([]Controller, error) {
	bus := filepath.Join(l.root, "sys/bus/pci/devices")
	entries, err := os.ReadDir(bus)
	if os.IsNotExist(err) {
		return nil, nil // a machine without PCI
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list storage controllers", "%w", err)
	}
	var out []Controller
	for _, e := range entries {
		dir := filepath.Join(bus, e.Name())
		id := func(name string) string { return strings.TrimPrefix(attr(dir, name), "0x") }
		if c := id("class"); strings.HasPrefix(c, "01") && !exists(filepath.Join(dir, "driver")) {
			out = append(out, Controller{Address: e.Name(), Class: c, VendorID: id("vendor"), DeviceID: id("device")})
		}
	}
	return out, nil
}

// byPath is the tail of the device's path below /sys/devices: the bus addresses, without the names that the kernel
// gives in the order of discovery.
func byPath(real string) string {
	_, tail, ok := strings.Cut(real, "/devices/")
	if !ok {
		return ""
	}
	var parts []string
	for _, p := range strings.Split(tail, "/") {
		switch {
		case p == "block":
			return strings.Join(parts, ".")
		case strings.HasPrefix(p, "host"), strings.HasPrefix(p, "target"), strings.HasPrefix(p, "virtio"), strings.HasPrefix(p, "nvme"):
			// numbers in the order of discovery
		case strings.Count(p, ":") == 3: // host:channel:target:lun, of which the host is such a number too
			_, p, _ = strings.Cut(p, ":")
			parts = append(parts, p)
		default:
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ".")
}

// vpdSerial reads SCSI's unit serial number (SPC, vital product data page 80h).
func vpdSerial(dir string) string {
	b := raw(filepath.Join(dir, "device/vpd_pg80"))
	if len(b) < 4 || b[1] != 0x80 {
		return ""
	}
	n := min(int(b[2])<<8|int(b[3]), len(b)-4)
	return strings.TrimSpace(string(b[4 : 4+n]))
}

func raw(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAttr))
	if err != nil {
		return nil
	}
	return b
}

func attr(dir, name string) string {
	return strings.TrimSpace(strings.Trim(string(raw(filepath.Join(dir, name))), "\x00"))
}

func number(dir, name string) int64 {
	n, err := strconv.ParseInt(attr(dir, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// Open implements Host: O_EXCL refuses a disk that is mounted or part of a RAID.
func (l *Linux) Open(want Info) (Disk, error) {
	have, err := Find(l, want.ID)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(l.root, have.Path)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "open disk", "%s: %w", path, err)
	}
	return &blockDisk{fd: fd, info: have}, nil
}

type blockDisk struct {
	fd   int
	info Info
}

func (d *blockDisk) ReadAt(p []byte, off int64) (int, error) {
	return d.full("read disk", unix.Pread, p, off)
}
func (d *blockDisk) WriteAt(p []byte, off int64) (int, error) {
	return d.full("write disk", unix.Pwrite, p, off)
}

func (d *blockDisk) full(op string, call func(int, []byte, int64) (int, error), p []byte, off int64) (int, error) {
	if !aligned(p, off, d.info.Sector) || off < 0 || off+int64(len(p)) > d.info.Size {
		return 0, fault.New(fault.Internal, op, "%d bytes at %d are not whole sectors of %s", len(p), off, d.info)
	}
	done := 0
	for done < len(p) {
		n, err := call(d.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return done, fault.New(fault.Unavailable, op, "%s at %d: %w", d.info.Name, off+int64(done), err).
				WithHelp("the disk is failing: look at the kernel's log on the machine's console")
		}
		done += n
	}
	return done, nil
}

func (d *blockDisk) Discard(off, n int64) error {
	if n == 0 {
		return nil
	}
	span := [2]uint64{uint64(off), uint64(n)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return fault.New(fault.Unsupported, "discard", "%s: %w", d.info.Name, errno)
	}
	return nil
}

func (d *blockDisk) Flush() error {
	if err := unix.Fsync(d.fd); err != nil {
		return fault.New(fault.Unavailable, "flush disk", "%s: %w", d.info.Name, err)
	}
	return nil
}

// Close has the kernel read the partition table again: what it knew may be gone.
func (d *blockDisk) Close() error {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), unix.BLKRRPART, 0) // EINVAL on disks without partitions
	return unix.Close(d.fd)
}
