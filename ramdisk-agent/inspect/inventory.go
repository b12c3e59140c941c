package inspect

import (
	"encoding/json"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
)

// MaxCompressed bounds an inventory as it travels, in bytes.
const MaxCompressed = 128 << 10

const (
	maxNICs = 256
	maxPCI  = 4096
)

// Inventory is what a machine is made of.
type Inventory struct {
	Version   int         `json:"version"` // of this form: 1
	System    System      `json:"system"`
	BootMode  string      `json:"boot_mode"` // bios or uefi
	CPU       CPU         `json:"cpu"`
	MemoryMiB int64       `json:"memory_mib"`
	Disks     []disk.Info `json:"disks"`
	NICs      []NIC       `json:"nics"`
	PCI       []PCI       `json:"pci,omitempty"`
	BootNIC   string      `json:"boot_nic,omitempty"` // MAC
	Simulated bool        `json:"simulated,omitempty"`
}

// System is what SMBIOS says.
type System struct {
	UUID         string `json:"uuid,omitempty"`
	Serial       string `json:"serial,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
	SKU          string `json:"sku,omitempty"`
	BoardSerial  string `json:"board_serial,omitempty"`
	BoardName    string `json:"board_name,omitempty"`
	BIOSVendor   string `json:"bios_vendor,omitempty"`
	BIOSVersion  string `json:"bios_version,omitempty"`
	BIOSDate     string `json:"bios_date,omitempty"`
	AssetTag     string `json:"asset_tag,omitempty"`
}

// CPU is all processors together.
type CPU struct {
	Architecture string   `json:"architecture"`
	Model        string   `json:"model,omitempty"`
	Sockets      int      `json:"sockets"`
	Cores        int      `json:"cores"`
	Threads      int      `json:"threads"`
	Flags        []string `json:"flags,omitempty"`
}

// NIC is a network card.
type NIC struct {
	Name      string `json:"name"`
	MAC       string `json:"mac"`
	Driver    string `json:"driver,omitempty"`
	PCI       string `json:"pci,omitempty"` // address
	VendorID  string `json:"vendor_id,omitempty"`
	DeviceID  string `json:"device_id,omitempty"`
	SpeedMbps int64  `json:"speed_mbps,omitempty"`
	Carrier   *bool  `json:"carrier,omitempty"` // absent when it cannot be known: the NIC is down
	IPv4      string `json:"ipv4,omitempty"`
}

// PCI is a device on the PCI bus.
type PCI struct {
	Address   string `json:"address"`
	Class     string `json:"class"`
	VendorID  string `json:"vendor_id"`
	DeviceID  string `json:"device_id"`
	SubVendor string `json:"subsystem_vendor_id,omitempty"`
	SubDevice string `json:"subsystem_device_id,omitempty"`
	Driver    string `json:"driver,omitempty"`
}

// Software is the inventory of a software machine.
func Software(m *machine.Machine, host disk.Host) (*Inventory, error) {
	disks, err := host.Disks()
	if err != nil {
		return nil, err
	}
	inv := &Inventory{Version: 1, BootMode: m.BootMode, MemoryMiB: m.MemoryMiB, Disks: disks, Simulated: true,
		System: System{UUID: m.System.UUID, Serial: m.System.Serial, Manufacturer: m.System.Manufacturer, Product: m.System.Product,
			BIOSVersion: m.System.BIOSVersion},
		CPU: CPU{Architecture: architecture(), Model: m.CPUModel, Sockets: 1, Cores: m.CPUs, Threads: m.CPUs}}
	cable := true
	for _, n := range m.NICs {
		inv.NICs = append(inv.NICs, NIC{Name: n.Name, MAC: n.MAC, IPv4: n.IP, Carrier: &cable})
	}
	inv.BootNIC = m.NICs[0].MAC
	return inv, nil
}

// MACs are the NICs' addresses.
func (i *Inventory) MACs() []string {
	var out []string
	for _, n := range i.NICs {
		out = append(out, n.MAC)
	}
	return out
}

// Compress makes the inventory's form on the wire: JSON in a zstd frame. What makes it too large is left out, the
// PCI devices first, then the CPU's flags.
func Compress(inv *Inventory) ([]byte, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fault.Wrap("compress inventory", err)
	}
	defer z.Close()
	small := *inv
	for _, drop := range []func(){func() {}, func() { small.PCI = nil }, func() { small.CPU.Flags = nil }} {
		drop()
		b, err := json.Marshal(&small)
		if err != nil {
			return nil, fault.Wrap("write inventory", err)
		}
		if out := z.EncodeAll(b, nil); len(out) <= MaxCompressed {
			return out, nil
		}
	}
	return nil, fault.New(fault.TooLarge, "compress inventory", "more than %d bytes", MaxCompressed)
}
