package inspect

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"

	"github.com/farrier-project/farrier/ramdisk-agent/disk"
)

const maxFile = 1 << 20 // bytes read of one file below /sys and /proc

// Linux takes the inventory of the machine whose /sys and /proc are below root ("/" outside of tests).
func Linux(root string, host disk.Host) (*Inventory, error) {
	disks, err := host.Disks()
	if err != nil {
		return nil, err
	}
	r := reader{root}
	inv := &Inventory{Version: 1, System: r.system(), BootMode: "bios", CPU: r.cpu(), MemoryMiB: r.memory(), Disks: disks,
		NICs: r.nics(), PCI: r.pci()}
	if r.exists("sys/firmware/efi") {
		inv.BootMode = "uefi"
	}
	return inv, nil
}

func architecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	default:
		return runtime.GOARCH
	}
}

type reader struct{ root string }

func (r reader) text(path string) string {
	f, err := os.Open(filepath.Join(r.root, path))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(strings.Trim(string(b), "\x00"), "?"))
}

func (r reader) number(path string) int64 {
	n, err := strconv.ParseInt(r.text(path), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (r reader) exists(path string) bool {
	_, err := os.Stat(filepath.Join(r.root, path))
	return err == nil
}

func (r reader) list(path string) []string {
	entries, err := os.ReadDir(filepath.Join(r.root, path))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	sort.Strings(out)
	return out
}

// link is the last element of what a symbolic link points to.
func (r reader) link(path string) string {
	to, err := os.Readlink(filepath.Join(r.root, path))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// lines calls f with each line of a file, while f is true.
func (r reader) lines(path string, f func(string) bool) {
	file, err := os.Open(filepath.Join(r.root, path))
	if err != nil {
		return
	}
	defer file.Close()
	s := bufio.NewScanner(io.LimitReader(file, 16*maxFile))
	s.Buffer(nil, maxFile)
	for s.Scan() && f(s.Text()) {
	}
}

func (r reader) system() System {
	dmi := func(name string) string {
		switch text := r.text("sys/class/dmi/id/" + name); strings.ToLower(text) {
		case "to be filled by o.e.m.", "not specified", "default string", "none", "system serial number": // firmware that was never filled in
			return ""
		default:
			return text
		}
	}
	return System{UUID: strings.ToLower(dmi("product_uuid")), Serial: dmi("product_serial"), Manufacturer: dmi("sys_vendor"),
		Product: dmi("product_name"), SKU: dmi("product_sku"), BoardSerial: dmi("board_serial"), BoardName: dmi("board_name"),
		BIOSVendor: dmi("bios_vendor"), BIOSVersion: dmi("bios_version"), BIOSDate: dmi("bios_date"), AssetTag: dmi("chassis_asset_tag")}
}

func (r reader) cpu() CPU {
	c := CPU{Architecture: architecture()}
	sockets, cores := map[string]bool{}, map[string]bool{}
	physical := "0"
	r.lines("proc/cpuinfo", func(line string) bool {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return true
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "processor":
			c.Threads++
		case "model name", "Model":
			c.Model = value
		case "physical id":
			physical = value
			sockets[value] = true
		case "core id":
			cores[physical+"/"+value] = true
		case "flags", "Features":
			if c.Flags == nil {
				c.Flags = strings.Fields(value)
			}
		}
		return true
	})
	c.Sockets, c.Cores = max(len(sockets), min(c.Threads, 1)), len(cores)
	if c.Cores == 0 {
		c.Cores = c.Threads
	}
	return c
}

// memory is what the kernel can use, rounded up to whole GiB above 4: firmware and kernel keep some of each module.
func (r reader) memory() int64 {
	kib := int64(0)
	r.lines("proc/meminfo", func(line string) bool {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, _ = strconv.ParseInt(f[1], 10, 64) // 0 when unreadable
			return false
		}
		return true
	})
	mib := kib / 1024
	if mib > 4096 {
		mib = (mib + 1023) / 1024 * 1024
	}
	return mib
}

// nics are the physical ones: those with a device behind them.
func (r reader) nics() []NIC {
	var out []NIC
	for _, name := range r.list("sys/class/net") {
		dir := "sys/class/net/" + name
		mac := r.text(dir + "/address")
		if !r.exists(dir+"/device") || len(mac) != 17 || len(out) >= maxNICs {
			continue
		}
		n := NIC{Name: name, MAC: mac, Driver: r.link(dir + "/device/driver"), Carrier: r.carrier(dir), IPv4: r.ipv4(name),
			SpeedMbps: max(r.number(dir+"/speed"), 0)}
		real, err := filepath.EvalSymlinks(filepath.Join(r.root, dir, "device"))
		if err == nil && strings.Count(filepath.Base(real), ":") != 2 { // virtio is one below its PCI device
			real = filepath.Dir(real)
		}
		if err == nil && strings.Count(filepath.Base(real), ":") == 2 {
			n.PCI = filepath.Base(real)
			n.VendorID, n.DeviceID = hex(r.text("sys/bus/pci/devices/"+n.PCI+"/vendor")), hex(r.text("sys/bus/pci/devices/"+n.PCI+"/device"))
		}
		out = append(out, n)
	}
	return out
}

// carrier cannot be read while a NIC is down.
func (r reader) carrier(dir string) *bool {
	text := r.text(dir + "/carrier")
	if text == "" {
		return nil
	}
	cable := text == "1"
	return &cable
}

// ipv4 is the first address of the NIC of this machine.
func (r reader) ipv4(name string) string {
	if r.root != "/" {
		return "" // another's files
	}
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return ""
	}
	addrs, err := nic.Addrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr().String()
		}
	}
	return ""
}

func (r reader) pci() []PCI {
	var out []PCI
	for _, addr := range r.list("sys/bus/pci/devices") {
		if len(out) >= maxPCI {
			break
		}
		dir := "sys/bus/pci/devices/" + addr
		out = append(out, PCI{Address: addr, Class: hex(r.text(dir + "/class")), VendorID: hex(r.text(dir + "/vendor")),
			DeviceID: hex(r.text(dir + "/device")), SubVendor: hex(r.text(dir + "/subsystem_vendor")),
			SubDevice: hex(r.text(dir + "/subsystem_device")), Driver: r.link(dir + "/driver")})
	}
	return out
}

func hex(s string) string { return strings.TrimPrefix(s, "0x") }
