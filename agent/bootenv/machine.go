package bootenv

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/pkg/fault"
)

// MAC is an Ethernet address.
type MAC [6]byte

// ParseMAC reads six pairs of hexadecimal digits parted by ':' or '-'.
func ParseMAC(text string) (MAC, error) {
	var m MAC
	bad := func() error {
		return fault.New(fault.Invalid, "read MAC", "%.32q is not an Ethernet address", text).WithHelp("write it as 52:54:00:12:34:56")
	}
	if len(text) != 17 {
		return m, bad()
	}
	for i := range m {
		hi, ok1 := nibble(text[3*i])
		lo, ok2 := nibble(text[3*i+1])
		if !ok1 || !ok2 || i < 5 && text[3*i+2] != text[2] {
			return MAC{}, bad()
		}
		m[i] = hi<<4 | lo
	}
	if text[2] != ':' && text[2] != '-' {
		return MAC{}, bad()
	}
	return m, nil
}

func nibble(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// String is lower case with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Port is one network port of a machine.
type Port struct {
	MAC MAC
	IP  netip.Addr // reserved for it; the zero Addr: from the pool
	PXE bool       // may boot from the network
}

// Attempt authorises one start of the ramdisk.
type Attempt struct {
	ID      string // 128 bit, hex
	Secret  string // hex
	Flow    uint64
	Expires time.Duration // on the owner's clock; after it no kernel is served and no ramdisk may claim it
	Claimed bool          // a ramdisk has made contact: nothing but the wait script is served
}

// Machine is a node assigned to this agent.
type Machine struct {
	Node  string
	Name  string
	Epoch uint64 // of the assignment
	Ports []Port
	Boot  *Attempt // nil: no boot is authorised
}

// Port finds the port with a MAC.
func (m *Machine) Port(mac MAC) (Port, bool) {
	for _, p := range m.Ports {
		if p.MAC == mac {
			return p, true
		}
	}
	return Port{}, false
}

// BootPort is the first port that may boot from the network.
func (m *Machine) BootPort() (Port, bool) {
	for _, p := range m.Ports {
		if p.PXE {
			return p, true
		}
	}
	return Port{}, false
}

// Assignment is what boot.Decide needs to know of the machine's port with the MAC. A nil machine is an unknown one.
func (m *Machine) Assignment(mac MAC, now time.Duration) boot.Assignment {
	if m == nil {
		return boot.Assignment{}
	}
	p, ok := m.Port(mac)
	if !ok {
		return boot.Assignment{}
	}
	a := boot.Assignment{Known: true, PXE: p.PXE}
	if b := m.Boot; b != nil && (b.Claimed || now < b.Expires) {
		a.BootID, a.Claimed = b.ID, b.Claimed
	}
	return a
}
