package inspect

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
)

func tree(t *testing.T, files map[string]string) string {
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

func TestLinux(t *testing.T) {
	const pci = "sys/devices/pci0000:00/0000:00:02.0/"
	root := tree(t, map[string]string{
		"sys/class/dmi/id/product_uuid": "11111111-AAAA-4111-8111-111111111111\n", "sys/class/dmi/id/sys_vendor": "Farrier\n",
		"sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.\n", "sys/class/dmi/id/bios_version": "1.16\n",
		"sys/firmware/efi/fw_platform_size": "64",
		"proc/cpuinfo":                      cpuinfo, "proc/meminfo": "MemTotal:       16299864 kB\nMemFree: 1 kB\n",
		pci + "virtio0/net/eth0/address": "52:54:00:00:00:01\n", pci + "virtio0/net/eth0/carrier": "1\n", pci + "virtio0/net/eth0/speed": "-1\n",
		pci + "virtio0/net/eth0/device->": "../../../virtio0", pci + "vendor": "0x1af4\n", pci + "device": "0x1000\n", pci + "class": "0x020000\n",
		"sys/class/net/eth0->": "../../../" + pci + "virtio0/net/eth0", "sys/bus/pci/devices/0000:00:02.0->": "../../../../" + pci,
		pci + "virtio1/net/eth1/address": "52:54:00:00:00:02\n", pci + "virtio1/net/eth1/device->": "../../../virtio1", "sys/class/net/eth1->": "../../../" + pci + "virtio1/net/eth1",
		pci + "virtio2/net/eth2/address": "52:54:00:00:00:03\n", pci + "virtio2/net/eth2/device->": "../../../virtio2", "sys/class/net/eth2->": "../../../" + pci + "virtio2/net/eth2",
		pci + "virtio2/net/eth2/carrier": "0\n",
		"sys/class/net/lo/address":       "00:00:00:00:00:00\n",
		"sys/class/block/README":         "",
		"sys/class/net/wg0/address":      "\n",
	})
	inv, err := Linux(root, disk.NewLinux(root))
	if err != nil {
		t.Fatal(err)
	}
	if inv.System.UUID != "11111111-aaaa-4111-8111-111111111111" || inv.System.Serial != "" || inv.System.Manufacturer != "Farrier" || inv.BootMode != "uefi" {
		t.Errorf("system %+v, boot mode %s", inv.System, inv.BootMode)
	}
	if c := inv.CPU; c.Sockets != 2 || c.Cores != 2 || c.Threads != 4 || c.Model != "Test CPU" || len(c.Flags) != 2 {
		t.Errorf("cpu %+v", c)
	}
	if inv.MemoryMiB != 16384 {
		t.Errorf("memory %d MiB", inv.MemoryMiB)
	}
	if len(inv.NICs) != 3 {
		t.Fatalf("NICs %+v", inv.NICs)
	}
	cable := func(n NIC) string { // eth1 is down: whether it has a cable is not known, and not said
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(b), `"carrier":`)
		text, _, _ = strings.Cut(text, "}")
		return text
	}
	if a, b, c := cable(inv.NICs[0]), cable(inv.NICs[1]), cable(inv.NICs[2]); a != "true" || b != "" || c != "false" {
		t.Errorf("carrier %q, %q, %q", a, b, c)
	}
	inv.NICs[0].Carrier = nil
	want := NIC{Name: "eth0", MAC: "52:54:00:00:00:01", PCI: "0000:00:02.0", VendorID: "1af4", DeviceID: "1000"}
	if inv.NICs[0] != want {
		t.Errorf("NICs %+v", inv.NICs)
	}
	if len(inv.PCI) != 1 || inv.PCI[0].Class != "020000" {
		t.Errorf("PCI %+v", inv.PCI)
	}
}

const cpuinfo = `processor	: 0
model name	: Test CPU
physical id	: 0
core id		: 0
flags		: fpu sse

processor	: 1
physical id	: 0
core id		: 0

processor	: 2
physical id	: 1
core id		: 0

processor	: 3
physical id	: 1
core id		: 0
`

func TestSoftwareAndCompress(t *testing.T) {
	m, err := machine.Parse([]byte(`{"system":{"uuid":"u","serial":"s"},"nics":[{"mac":"52:54:00:00:00:01"}],"disks":[{"path":"d","size_bytes":4096,"wwn":"0x5"}]}`), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	host, err := disk.NewSoftware(m.Disks)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := Software(m, host)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Compress(inv)
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, b)
	if !got.Simulated || got.System.Serial != "s" || len(got.Disks) != 1 || got.Disks[0].ID != "wwn-0x5" || got.MACs()[0] != "52:54:00:00:00:01" {
		t.Errorf("inventory %+v", got)
	}
	for i := range maxPCI {
		inv.PCI = append(inv.PCI, PCI{Address: fmt.Sprint(i), Driver: fmt.Sprintf("%x%x%x%x%x%x", rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64())})
	}
	if b, err = Compress(inv); err != nil || len(decode(t, b).PCI) != 0 {
		t.Errorf("an inventory that is too large keeps its PCI devices (%v)", err)
	}
	for range 5000 {
		inv.NICs = append(inv.NICs, NIC{Name: fmt.Sprintf("%x%x%x", rand.Uint64(), rand.Uint64(), rand.Uint64())})
	}
	if _, err = Compress(inv); !fault.Is(err, fault.TooLarge) {
		t.Errorf("far too large: %v", err)
	}
}

func decode(t *testing.T, b []byte) *Inventory {
	t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	text, err := z.DecodeAll(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := new(Inventory)
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatal(err)
	}
	return out
}
