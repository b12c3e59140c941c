package boot

import "fmt"

// Rack is what all answers of one agent share.
type Rack struct {
	Unknown Policy
	HTTP    string // base URL of the agent's boot server, without a trailing slash: http://10.77.0.1:8080
}

// Serve says what kind of answer a machine gets.
type Serve uint8

// The kinds of answer. The zero Serve is Nothing.
const (
	Nothing     Serve = iota // stay silent
	AddressOnly              // an address, no boot file
	Program                  // an address and a boot program
	Script                   // an address and the URL of an iPXE script
)

func (s Serve) String() string {
	switch s {
	case Nothing:
		return "nothing"
	case AddressOnly:
		return "address"
	case Program:
		return "program"
	case Script:
		return "script"
	default:
		return fmt.Sprintf("serve(%d)", uint8(s))
	}
}

// Answer is what to give the machine.
type Answer struct {
	Serve Serve
	File  string // of Program and Script: a TFTP name or a URL
	URL   bool   // File is a URL
	Why   string // for the log
}

// The boot programs' names, as tftp and httpboot serve them. They are those of the iPXE project.
const (
	ProgramBIOS  = "undionly.kpxe"
	ProgramX64   = "snponly.efi"
	ProgramARM64 = "snponly-arm64.efi"
)

// Paths below the agent's HTTP base.
const (
	PathPrograms = "/programs/"    // + program name
	PathBoot     = "/boot/"        // + boot id + /ipxe, /kernel, /ramdisk
	PathUnknown  = "/boot/unknown" // + /ipxe: the script of unknown machines under policy Halt
	PathImages   = "/images/"      // + hex SHA-256
)

// ProgramFor is the name of the boot program for an architecture; empty when the rack has none.
func ProgramFor(a Arch) string {
	switch a {
	case ArchBIOS:
		return ProgramBIOS
	case ArchX64, ArchX64Alt, ArchHTTPX64:
		return ProgramX64
	case ArchARM64, ArchHTTPARM64:
		return ProgramARM64
	default:
		return ""
	}
}

// Decide chooses the answer for one request.
func Decide(r Rack, q Request, a Assignment) Answer {
	scriptBase := PathUnknown
	switch {
	case !a.Known && r.Unknown == Ignore:
		return Answer{Serve: Nothing, Why: "unknown machine"}
	case !a.Known && (r.Unknown == Address || q.Client == Plain):
		return Answer{Serve: AddressOnly, Why: "unknown machine"}
	case q.Client == Plain:
		return Answer{Serve: AddressOnly, Why: "not booting"}
	case a.Known && !a.PXE:
		return Answer{Serve: AddressOnly, Why: "the port is not enabled for network boot"}
	case a.Known && a.BootID == "":
		return Answer{Serve: AddressOnly, Why: "no boot attempt is open"}
	case a.Known:
		scriptBase = PathBoot + a.BootID
	}
	if q.Client == IPXE {
		return Answer{Serve: Script, File: r.HTTP + scriptBase + "/ipxe?mac=" + hyphens(q.MAC), URL: true, Why: why(a)}
	}
	program := ProgramFor(q.Arch)
	if program == "" {
		return Answer{Serve: AddressOnly, Why: fmt.Sprintf("no boot program for architecture %d", q.Arch)}
	}
	if q.Client == HTTP {
		return Answer{Serve: Program, File: r.HTTP + PathPrograms + program, URL: true, Why: why(a)}
	}
	return Answer{Serve: Program, File: program, Why: why(a)}
}

func why(a Assignment) string {
	switch {
	case !a.Known:
		return "unknown machine is told to halt"
	case a.Claimed:
		return "the boot attempt is used up: told to wait"
	default:
		return "boot attempt is open"
	}
}

// hyphens is a MAC as iPXE's hexhyp and BOOTIF write it: 52-54-00-12-34-56.
func hyphens(m [6]byte) string {
	return fmt.Sprintf("%02x-%02x-%02x-%02x-%02x-%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}
