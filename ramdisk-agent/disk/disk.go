package disk

import (
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unsafe"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Align is what memory, offsets and lengths of bulk reads and writes are multiples of: enough for O_DIRECT on
// every sector size in use.
const Align = 4096

// Info describes a disk. It is safe to copy.
type Info struct {
	ID         string `json:"id"`                  // stable across boots: wwn-..., eui-..., serial-..., path-...
	Name       string `json:"name"`                // of this boot: sda
	Path       string `json:"path"`                // /dev/sda, or the file
	ByPath     string `json:"by_path,omitempty"`   // where it is plugged in
	WWN        string `json:"wwn,omitempty"`       // 0x5000...
	EUI        string `json:"eui,omitempty"`       // NVMe: eui.... or uuid....
	Serial     string `json:"serial,omitempty"`    //
	Vendor     string `json:"vendor,omitempty"`    //
	Model      string `json:"model,omitempty"`     //
	Size       int64  `json:"size_bytes"`          //
	Sector     int64  `json:"sector_bytes"`        // logical
	Rotational bool   `json:"rotational"`          //
	Discard    bool   `json:"discard"`             // it says that it can; whether it does must be verified
	ReadOnly   bool   `json:"read_only,omitempty"` // the device refuses writes
	Removable  bool   `json:"removable,omitempty"` // its medium is: a USB stick, a card
	Simulated  bool   `json:"simulated,omitempty"` // kept in a file
}

// String is how lists of disks are shown in errors.
func (i Info) String() string {
	var b strings.Builder
	b.WriteString(i.Name + " " + FormatSize(i.Size))
	for _, s := range []string{i.Vendor, i.Model} {
		if s != "" {
			b.WriteString(" " + s)
		}
	}
	if i.Serial != "" {
		b.WriteString(" serial " + i.Serial)
	}
	b.WriteString(" (" + i.ID + ")")
	return b.String()
}

// Disk is an open disk. Offsets, lengths and the memory of p are multiples of the sector size; Buffer makes such
// memory. Reads and writes of different ranges may run at the same time. The user closes it, after Flush.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Discard gives the range back to the device. What it reads as afterwards must be verified. A disk that
	// cannot answers fault.Unsupported.
	Discard(off, n int64) error
	// Flush returns once everything written is on stable storage.
	Flush() error
	Close() error
}

// Fixed tells whether the disk is part of the machine and takes writes: one to put an image on.
func (i Info) Fixed() bool { return !i.ReadOnly && !i.Removable }

// Controller is a storage controller on the PCI bus.
type Controller struct {
	Address            string // 0000:3b:00.0
	Class              string // six hex digits, 01....
	VendorID, DeviceID string // four hex digits
}

// String is how controllers are shown in errors and facts: the address, and the ids to look the driver up by.
func (c Controller) String() string {
	return c.Address + " " + c.VendorID + ":" + c.DeviceID + " class " + c.Class
}

// Host is a machine's disks. It is safe for concurrent use.
type Host interface {
	// Disks lists every disk with a medium in the order of their stable ids, also those that are not Fixed.
	Disks() ([]Info, error)
	// Undriven lists the storage controllers that no driver is bound to: what is behind them is not among Disks.
	Undriven() ([]Controller, error)
	// Open opens a listed disk for writing, alone, after checking that the device still has the stable id.
	Open(want Info) (Disk, error)
}

// Find is the disk with a stable id.
func Find(h Host, id string) (Info, error) {
	disks, err := h.Disks()
	if err != nil {
		return Info{}, err
	}
	for _, d := range disks {
		if d.ID == id {
			return d, nil
		}
	}
	return Info{}, fault.New(fault.NoMatch, "find disk", "no disk has the id %q; there are: %s", id, List(disks)).
		WithHelp("the disk that was chosen is gone: look at the machine, then deploy again")
}

// Fixed is those of the disks that an image can be put on.
func Fixed(disks []Info) []Info {
	var out []Info
	for _, d := range disks {
		if d.Fixed() {
			out = append(out, d)
		}
	}
	return out
}

// List is the disks in one line, at most 16 of them.
func List(disks []Info) string {
	if len(disks) == 0 {
		return "none"
	}
	var parts []string
	for i, d := range disks {
		if i == 16 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, d.String())
	}
	return strings.Join(parts, "; ")
}

// FormatSize is a size for people, in units of 1024.
func FormatSize(n int64) string {
	const units = "KMGTP"
	i := -1
	f := n * 10
	for f >= 10240 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i < 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return fmt.Sprintf("%d.%d %ciB", f/10, f%10, units[i])
}

// identify fills in the stable ids: the first of WWN, EUI and serial that no other disk shares, else the place
// where the disk is plugged in. Disks are sorted by it.
func identify(disks []Info) {
	seen := make(map[string]int)
	ids := make([][]string, len(disks))
	for i, d := range disks {
		for _, c := range []struct{ kind, value string }{{"wwn", d.WWN}, {"eui", d.EUI}, {"serial", d.Serial}, {"path", d.ByPath}} {
			if c.value != "" {
				id := c.kind + "-" + clean(c.value)
				ids[i] = append(ids[i], id)
				seen[id]++
			}
		}
	}
	for i := range disks {
		disks[i].ID = "name-" + clean(disks[i].Name)
		for _, id := range ids[i] {
			if seen[id] == 1 {
				disks[i].ID = id
				break
			}
		}
	}
	sort.Slice(disks, func(i, j int) bool { return disks[i].ID < disks[j].ID })
}

// clean keeps what is harmless in logs, facts and error texts, at most 128 bytes.
func clean(s string) string {
	out := make([]byte, 0, min(len(s), 128))
	for i := 0; i < len(s) && len(out) < 128; i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '.', c == ':', c == '_', c == '-':
			out = append(out, c)
		default:
			out = append(out, '_')
		}
	}
	return string(out)
}

// Buffer is n bytes of zeroed memory at an address that is a multiple of Align.
func Buffer(n int) []byte {
	b := make([]byte, n+Align)
	shift := 0
	if rest := int(uintptr(unsafe.Pointer(&b[0])) % Align); rest != 0 {
		shift = Align - rest
	}
	return b[shift : shift+n : shift+n]
}

// aligned tells whether a transfer is in whole sectors, in aligned memory.
func aligned(p []byte, off, sector int64) bool {
	return off%sector == 0 && int64(len(p))%sector == 0 &&
		(len(p) == 0 || uintptr(unsafe.Pointer(&p[0]))%512 == 0)
}
