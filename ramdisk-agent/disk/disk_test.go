package disk

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
)

// sysfs makes a /sys as Linux has it; a key that ends in "->" is a symbolic link.
func sysfs(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		link, isLink := strings.CutSuffix(name, "->")
		path := filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if isLink {
			err = os.Symlink(text, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLinuxDisks(t *testing.T) {
	const pci = "sys/devices/pci0000:00/"
	const (
		vda = pci + "0000:00:03.0/virtio0/block/vda/"
		sda = pci + "0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/"
		nvm = pci + "0000:00:04.0/nvme/nvme0/nvme0n1/"
		usb = pci + "0000:00:05.0/usb1/host7/target7:0:0/7:0:0:0/block/sdb/"
		lop = "sys/devices/virtual/block/loop0/"
	)
	files := map[string]string{
		"sys/class/block/vda->": "../../../" + vda, "sys/class/block/sda->": "../../../" + sda, "sys/class/block/nvme0n1->": "../../../" + nvm,
		"sys/class/block/sdb->": "../../../" + usb, "sys/class/block/loop0->": "../../../" + lop, "sys/class/block/vda1->": "../../../" + vda + "vda1",
		vda + "size": "20480\n", vda + "serial": "DISK1", vda + "device/vendor": "0x1af4\n", vda + "queue/rotational": "1\n", vda + "queue/discard_max_bytes": "2147483136\n",
		vda + "vda1/partition": "1\n", vda + "vda1/size": "100\n",
		sda + "size": "4096", sda + "device/model": "QEMU HARDDISK   \n", sda + "device/vendor": "ATA     \n", sda + "device/wwid": "naa.5000c500aabbccdd\n",
		sda + "queue/logical_block_size": "4096\n", sda + "queue/rotational": "0", sda + "device/vpd_pg80": "\x00\x80\x00\x08  SER123",
		nvm + "size": "8192", nvm + "wwid": "eui.0025388b01000001\n", nvm + "device/serial": "NV1   \n", nvm + "device/model": "Fast\n",
		usb + "size": "100", usb + "removable": "1\n", usb + "ro": "1\n",
		lop + "size": "100",
	}
	disks, err := NewLinux(sysfs(t, files)).Disks()
	if err != nil {
		t.Fatal(err)
	}
	want := []Info{
		{ID: "eui-eui.0025388b01000001", Name: "nvme0n1", Path: "/dev/nvme0n1", ByPath: "pci0000:00.0000:00:04.0", EUI: "eui.0025388b01000001", Serial: "NV1", Model: "Fast", Size: 4 << 20, Sector: 512},
		{ID: "path-pci0000:00.0000:00:05.0.usb1.0:0:0", Name: "sdb", Path: "/dev/sdb", ByPath: "pci0000:00.0000:00:05.0.usb1.0:0:0", Size: 100 * 512, Sector: 512, ReadOnly: true, Removable: true},
		{ID: "serial-DISK1", Name: "vda", Path: "/dev/vda", ByPath: "pci0000:00.0000:00:03.0", Serial: "DISK1", Size: 10 << 20, Sector: 512, Rotational: true, Discard: true},
		{ID: "wwn-0x5000c500aabbccdd", Name: "sda", Path: "/dev/sda", ByPath: "pci0000:00.0000:00:1f.2.ata1.0:0:0", WWN: "0x5000c500aabbccdd", Serial: "SER123", Vendor: "ATA", Model: "QEMU HARDDISK", Size: 2 << 20, Sector: 4096},
	}
	if len(disks) != len(want) {
		t.Fatalf("disks %s", List(disks))
	}
	for i := range want {
		if disks[i] != want[i] {
			t.Errorf("disk %d:\n%+v, want\n%+v", i, disks[i], want[i])
		}
	}
}

// Two disks with one serial number are told apart by where they are plugged in.
func TestSameSerial(t *testing.T) {
	disks := []Info{{Name: "a", Serial: "X", ByPath: "p1"}, {Name: "b", Serial: "X", ByPath: "p2"}, {Name: "c", Serial: "weird \x1b[31m", ByPath: "p3"}, {Name: "d"}}
	identify(disks)
	var ids []string
	for _, d := range disks {
		ids = append(ids, d.ID)
	}
	if got := strings.Join(ids, " "); got != "name-d path-p1 path-p2 serial-weird___31m" {
		t.Errorf("ids %s", got)
	}
}

func software(t *testing.T, d machine.Disk) (*Software, Info) {
	t.Helper()
	d.Path, d.Sector, d.Name, d.Serial = filepath.Join(t.TempDir(), "d"), max(d.Sector, 512), "sda", "S"
	d.SizeBytes = 1 << 20
	h, err := NewSoftware([]machine.Disk{d})
	if err != nil {
		t.Fatal(err)
	}
	info, err := Find(h, "serial-S")
	if err != nil {
		t.Fatal(err)
	}
	return h, info
}

func TestSoftwareDisk(t *testing.T) {
	h, info := software(t, machine.Disk{Sector: 4096, Discard: machine.DiscardLies})
	d, err := h.Open(info)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := h.Open(info); !fault.Is(err, fault.Busy) {
		t.Errorf("opened twice: %v", err)
	}
	b := Buffer(8192)
	copy(b, "hello")
	if _, err := d.WriteAt(b, 4096); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	got := Buffer(4096)
	if _, err := d.ReadAt(got, 4096); err != nil || !bytes.HasPrefix(got, []byte("hello")) {
		t.Errorf("a lying discard changed the disk (%v)", err)
	}
	for name, call := range map[string]func() error{
		"unaligned offset": func() error { _, err := d.WriteAt(b, 512); return err },
		"unaligned length": func() error { _, err := d.ReadAt(b[:512], 0); return err },
		"unaligned memory": func() error { _, err := d.ReadAt(b[8:4104], 0); return err },
		"beyond the end":   func() error { _, err := d.WriteAt(b, 1<<20-4096); return err },
		"discard":          func() error { return d.Discard(512, 4096) },
	} {
		if err := call(); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Find(h, "serial-T"); !fault.Is(err, fault.NoMatch) || !strings.Contains(err.Error(), "sda 1.0 MiB serial S") {
		t.Errorf("find: %v", err)
	}
}

func TestSpan(t *testing.T) {
	h, info := software(t, machine.Disk{})
	d, err := h.Open(info)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s := NewSpan(d, info)
	if _, err := s.WriteAt(bytes.Repeat([]byte{7}, 1000), 300); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1400)
	if _, err := s.ReadAt(got, 100); err != nil {
		t.Fatal(err)
	}
	if want := append(append(make([]byte, 200), bytes.Repeat([]byte{7}, 1000)...), make([]byte, 200)...); !bytes.Equal(got, want) {
		t.Error("the neighbours of a small write changed")
	}
	if _, err := s.ReadAt(got, info.Size-10); err != io.ErrUnexpectedEOF {
		t.Errorf("beyond the end: %v", err)
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 20: "10.0 MiB", 1 << 40: "1.0 TiB", 15 << 39: "7.5 TiB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestControllersWithoutADriver(t *testing.T) {
	const bus = "sys/bus/pci/devices/"
	root := sysfs(t, map[string]string{
		bus + "0000:00:01.0/class": "0x010802\n", bus + "0000:00:01.0/driver->": "../nvme",
		bus + "0000:3b:00.0/class": "0x010400\n", bus + "0000:3b:00.0/vendor": "0x9005\n", bus + "0000:3b:00.0/device": "0x028d\n",
		bus + "0000:00:02.0/class": "0x020000\n",
		"sys/bus/nvme":             "", bus + "nvme/x": "",
	})
	got, err := NewLinux(root).Undriven()
	if err != nil || len(got) != 1 || got[0].String() != "0000:3b:00.0 9005:028d class 010400" {
		t.Errorf("controllers %v, %v", got, err)
	}
	if got, err := NewLinux(t.TempDir()).Undriven(); err != nil || len(got) != 0 {
		t.Errorf("a machine without PCI: %v, %v", got, err)
	}
}

// TestSoftwareDiskGate: a write past the gate waits until the gate is gone, and leaves nothing in the log before.
func TestSoftwareDiskGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		gate, log := filepath.Join(dir, "gate"), filepath.Join(dir, "log")
		if err := os.WriteFile(gate, []byte("4096\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h, info := software(t, machine.Disk{WriteLog: log, WriteGate: gate})
		d, err := h.Open(info)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.WriteAt(Buffer(4096), 0); err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() {
			_, err := d.WriteAt(Buffer(4096), 4096)
			written <- err
		}()
		synctest.Wait()
		select {
		case err := <-written:
			t.Errorf("the gate let more through than it says (%v)", err)
		default:
		}
		if b, err := os.ReadFile(log); err != nil || string(b) != "write 0 4096\n" {
			t.Errorf("the log before the gate opened: %q, %v", b, err)
		}
		if err := os.Remove(gate); err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}
