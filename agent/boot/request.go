package boot

import "fmt"

// Client is what is asking.
type Client uint8

// The clients. The zero Client asks for an address only.
const (
	Plain Client = iota // an operating system or the ramdisk: no boot options
	PXE                 // firmware PXE: vendor class PXEClient
	HTTP                // UEFI HTTP Boot: vendor class HTTPClient
	IPXE                // iPXE: user class iPXE
)

func (c Client) String() string {
	switch c {
	case Plain:
		return "plain"
	case PXE:
		return "pxe"
	case HTTP:
		return "http"
	case IPXE:
		return "ipxe"
	default:
		return fmt.Sprintf("client(%d)", uint8(c))
	}
}

// Arch is the processor architecture type of DHCP option 93 (RFC 4578 section 2.1, IANA "Processor Architecture
// Types").
type Arch uint16

// The architectures that the rack has a program for.
const (
	ArchBIOS      Arch = 0
	ArchX64       Arch = 7 // x64 UEFI as most firmware says it (EFI BC in RFC 4578, swapped by an erratum)
	ArchX64Alt    Arch = 9 // x64 UEFI as the erratum says it
	ArchARM64     Arch = 11
	ArchHTTPX64   Arch = 16 // x64 UEFI HTTP Boot
	ArchHTTPARM64 Arch = 19
)

// Firmware is the kind of firmware that an architecture implies.
type Firmware uint8

// The firmwares.
const (
	_ Firmware = iota
	BIOS
	UEFI
)

func (f Firmware) String() string {
	switch f {
	case BIOS:
		return "bios"
	case UEFI:
		return "uefi"
	default:
		return fmt.Sprintf("firmware(%d)", uint8(f))
	}
}

// Firmware is BIOS for architecture 0 and UEFI for all others.
func (a Arch) Firmware() Firmware {
	if a == ArchBIOS {
		return BIOS
	}
	return UEFI
}

// Request is what a machine said of itself.
type Request struct {
	MAC    [6]byte
	Client Client
	Arch   Arch // of PXE and HTTP clients; 0 when the machine did not say, which old BIOS ROMs do not
}

// Assignment is what the rack holds about the machine with the request's MAC. The zero Assignment is an unknown
// machine.
type Assignment struct {
	Known   bool   // the MAC is a port of a node of this agent
	PXE     bool   // the port may boot from the network
	BootID  string // of the boot attempt that is open and not expired; empty: no boot is authorised
	Claimed bool   // a ramdisk has made contact under BootID: the attempt starts no second one
}

// Policy says what unknown machines get. Machines of other agents are unknown, so that only Ignore is right while there
// are any.
type Policy uint8

// The policies. The zero Policy is Ignore: on a segment shared with another DHCP server nothing else is safe.
const (
	Ignore  Policy = iota // no answer at all
	Address               // an address from the pool, no boot file
	Halt                  // an address, and an iPXE script that names the machine and waits
)

func (p Policy) String() string {
	switch p {
	case Ignore:
		return "ignore"
	case Address:
		return "address"
	case Halt:
		return "halt"
	default:
		return fmt.Sprintf("policy(%d)", uint8(p))
	}
}

// ParsePolicy reads a policy's text; ok is false for unknown text.
func ParsePolicy(text string) (p Policy, ok bool) {
	for p := Ignore; p <= Halt; p++ {
		if p.String() == text {
			return p, true
		}
	}
	return 0, false
}
