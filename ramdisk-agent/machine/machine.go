package machine

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

const maxFile = 1 << 20 // bytes of a machine file

// Machine is a software machine as its file describes it, with defaults filled in and paths made absolute.
type Machine struct {
	System    System `json:"system"`
	BootMode  string `json:"boot_mode,omitempty"`
	CPUs      int    `json:"cpus,omitempty"`
	CPUModel  string `json:"cpu_model,omitempty"`
	MemoryMiB int64  `json:"memory_mib,omitempty"`
	SourceIP  string `json:"source_ip,omitempty"`
	NICs      []NIC  `json:"nics"`
	Disks     []Disk `json:"disks"`
}

// System is what SMBIOS would say.
type System struct {
	UUID         string `json:"uuid"`
	Serial       string `json:"serial,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
	BIOSVersion  string `json:"bios_version,omitempty"`
}

// NIC is a network card.
type NIC struct {
	Name string `json:"name,omitempty"`
	MAC  string `json:"mac"`
	IP   string `json:"ip,omitempty"`
}

// Disk is a disk kept in a file.
type Disk struct {
	Path       string  `json:"path"`
	SizeBytes  int64   `json:"size_bytes,omitempty"`
	Name       string  `json:"name,omitempty"`
	Serial     string  `json:"serial,omitempty"`
	WWN        string  `json:"wwn,omitempty"`
	Vendor     string  `json:"vendor,omitempty"`
	Model      string  `json:"model,omitempty"`
	Rotational bool    `json:"rotational,omitempty"`
	ReadOnly   bool    `json:"read_only,omitempty"`
	Removable  bool    `json:"removable,omitempty"`
	Discard    Discard `json:"discard,omitempty"`
	Sector     int64   `json:"sector,omitempty"`
	WriteRate  int64   `json:"write_bytes_per_second,omitempty"`
	WriteLog   string  `json:"write_log,omitempty"`
	WriteGate  string  `json:"write_gate,omitempty"`
}

// Discard says what a disk does with a discard.
type Discard string

// The answers to a discard. In JSON they are true, false and "lies"; absent is true.
const (
	DiscardWorks  Discard = "true"
	DiscardRefuse Discard = "false"
	DiscardLies   Discard = "lies" // answers success and changes nothing: QEMU without discard=unmap does so
)

// UnmarshalJSON reads true, false or "lies".
func (d *Discard) UnmarshalJSON(b []byte) error {
	switch text := Discard(strings.Trim(string(b), `"`)); text {
	case DiscardWorks, DiscardRefuse, DiscardLies:
		*d = text
		return nil
	default:
		return fault.New(fault.Invalid, "read discard", "%s is not true, false or \"lies\"", b)
	}
}

// MarshalJSON writes true, false or "lies".
func (d Discard) MarshalJSON() ([]byte, error) {
	switch d {
	case DiscardRefuse:
		return []byte("false"), nil
	case DiscardLies:
		return []byte(`"lies"`), nil
	default:
		return []byte("true"), nil
	}
}

// Read loads and checks a machine file.
func Read(path string) (*Machine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read machine file", "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read machine file", "%w", err)
	}
	m, err := Parse(b, filepath.Dir(path))
	return m, fault.Wrap("read "+path, err)
}

// Parse reads a machine from JSON; dir is what relative disk paths are below.
func Parse(b []byte, dir string) (*Machine, error) {
	if len(b) > maxFile {
		return nil, fault.New(fault.TooLarge, "parse machine", "more than %d bytes", maxFile)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := new(Machine)
	if err := d.Decode(m); err != nil {
		return nil, fault.New(fault.Invalid, "parse machine", "%w", err).
			WithHelp("the fields are listed in the documentation of ramdisk-agent/machine")
	}
	if err := m.complete(dir); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Machine) complete(dir string) error {
	if m.System.UUID == "" {
		return invalid("system.uuid", "a machine needs a UUID")
	}
	if m.BootMode == "" {
		m.BootMode = "bios"
	}
	if m.BootMode != "bios" && m.BootMode != "uefi" {
		return invalid("boot_mode", "%q is not bios or uefi", m.BootMode)
	}
	m.CPUs, m.MemoryMiB = max(m.CPUs, 1), max(m.MemoryMiB, 0)
	if m.MemoryMiB == 0 {
		m.MemoryMiB = 1024
	}
	if m.CPUModel == "" {
		m.CPUModel = "simulated"
	}
	if m.SourceIP != "" {
		if _, err := netip.ParseAddr(m.SourceIP); err != nil {
			return invalid("source_ip", "%w", err)
		}
	}
	if len(m.NICs) == 0 || len(m.NICs) > 64 || len(m.Disks) > 256 {
		return invalid("nics", "a machine has 1 to 64 NICs and up to 256 disks, not %d and %d", len(m.NICs), len(m.Disks))
	}
	for i := range m.NICs {
		mac, err := net.ParseMAC(m.NICs[i].MAC)
		if err != nil || len(mac) != 6 {
			return invalid("nics.mac", "%q is not a MAC address", m.NICs[i].MAC)
		}
		m.NICs[i].MAC = mac.String()
		if m.NICs[i].Name == "" {
			m.NICs[i].Name = "eth" + string(rune('0'+i%10))
		}
	}
	for i := range m.Disks {
		if err := m.Disks[i].complete(dir, i); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) complete(dir string, i int) error {
	if d.Path == "" {
		return invalid("disks.path", "disk %d has no path", i)
	}
	if !filepath.IsAbs(d.Path) {
		d.Path = filepath.Join(dir, d.Path)
	}
	for _, path := range []*string{&d.WriteLog, &d.WriteGate} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if d.Name == "" {
		d.Name = diskName(i)
	}
	if d.Discard == "" {
		d.Discard = DiscardWorks
	}
	if d.Sector == 0 {
		d.Sector = 512
	}
	if d.Sector != 512 && d.Sector != 4096 {
		return invalid("disks.sector", "%d is not 512 or 4096", d.Sector)
	}
	if d.SizeBytes < 0 || d.SizeBytes%d.Sector != 0 || d.WriteRate < 0 {
		return invalid("disks.size_bytes", "size %d is not a whole number of %d-byte sectors, or the rate is negative", d.SizeBytes, d.Sector)
	}
	return nil
}

// diskName is sda to sdz, then sdaa, as the kernel counts.
func diskName(i int) string {
	if i < 26 {
		return "sd" + string(rune('a'+i))
	}
	return "sd" + string(rune('a'+i/26-1)) + string(rune('a'+i%26))
}

func invalid(field, format string, args ...any) error {
	return fault.New(fault.Invalid, "check machine", "%s: "+format, append([]any{field}, args...)...).
		WithHelp("the fields are listed in the documentation of ramdisk-agent/machine").
		WithDetail(&fault.FieldDetail{Field: field})
}
