package boot

import (
	"net/url"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Agent is where a ramdisk finds one agent of the group.
type Agent struct {
	URL string // https://address:8443
	Pin string // hex SHA-256 of the SPKI of the certificate served there
}

// Launch is what the script of one boot attempt says.
type Launch struct {
	HTTP   string // base URL of the boot server
	BootID string
	Secret string  // hex
	MAC    [6]byte // of the port that boots
	Agents []Agent // this agent first; at most MaxAgents are named
	Extra  []Arg   // configured for the rack
}

// MaxAgents is how many agents a command line names: the kernel keeps 2,048 bytes of it.
const MaxAgents = 6

// maxCommandLine is the part of COMMAND_LINE_SIZE (2,048 on x86) that a script may use, in bytes.
const maxCommandLine = 2000

// Args is the ramdisk's kernel command line.
func (l Launch) Args() ([]Arg, error) {
	if !isHex(l.BootID) || !isHex(l.Secret) {
		return nil, fault.New(fault.Invalid, "boot script", "boot id and secret must be hexadecimal")
	}
	agents := l.Agents[:min(len(l.Agents), MaxAgents)]
	urls, pins := make([]string, 0, len(agents)), make([]string, 0, len(agents))
	for _, a := range agents {
		u, err := url.Parse(a.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Contains(a.URL, ",") || !isHex(a.Pin) {
			return nil, fault.New(fault.Invalid, "boot script", "agent address %q with pin %q", a.URL, a.Pin).
				WithHelp("an agent is named by https://address:port and the hex SHA-256 of its key")
		}
		urls, pins = append(urls, a.URL), append(pins, a.Pin)
	}
	texts := []string{
		"initrd=ramdisk", // an EFI kernel finds its ramdisk by this name
		"farrier.boot=" + l.BootID,
		"farrier.secret=" + l.Secret,
		"farrier.agents=" + strings.Join(urls, ","),
		"farrier.pins=" + strings.Join(pins, ","),
		"BOOTIF=01-" + hyphens(l.MAC),
		"no_timer_check", // an overloaded emulator loses the boot timer's test and panics without it
		"console=ttyS0",
	}
	args, err := ParseArgs(texts)
	if err != nil {
		return nil, err
	}
	return append(args, l.Extra...), nil
}

// Script is the iPXE script of the boot attempt. It tries ten times, a second longer each time, then restarts
// the machine: falling through to the disk would start half an installation.
func (l Launch) Script() (string, error) {
	args, err := l.Args()
	if err != nil {
		return "", err
	}
	if err := checkBase(l.HTTP); err != nil {
		return "", err
	}
	line := make([]string, len(args))
	for i, a := range args {
		line[i] = a.String()
	}
	cmdline := strings.Join(line, " ")
	if len(cmdline) > maxCommandLine {
		return "", fault.New(fault.TooLarge, "boot script", "the kernel command line is %d bytes, more than %d", len(cmdline), maxCommandLine).
			WithHelp("remove configured kernel arguments")
	}
	base := l.HTTP + PathBoot + l.BootID
	return strings.Join([]string{
		"#!ipxe",
		"set attempt:int32 0",
		":deploy",
		"imgfree",
		"kernel --name kernel " + base + "/kernel " + cmdline + " || goto retry",
		"initrd --name ramdisk " + base + "/ramdisk || goto retry",
		"boot",
		":retry",
		"iseq ${attempt} 10 && goto fail ||",
		"inc attempt",
		"echo No answer from the rack agent, trying again in ${attempt} s",
		"sleep ${attempt}",
		"goto deploy",
		":fail",
		"echo Giving up, the machine restarts in 30 s",
		"sleep 30",
		"reboot",
		"",
	}, "\n"), nil
}

// QueryAgain marks a script's URL as asked for by WaitScript.
const QueryAgain = "again"

// WaitScript is for a machine whose boot attempt is used up: it waits for the power to be cut, and does not start
// the half-written disk. It asks every 30 s whether that is still so, at the URL of its own script with QueryAgain. After
// five minutes without an answer it restarts the machine, which then finds the agent that owns it by DHCP.
func WaitScript(http, bootID string, mac [6]byte) (string, error) {
	if err := checkBase(http); err != nil {
		return "", err
	}
	return strings.Join([]string{
		"#!ipxe",
		"set attempt:int32 0",
		":wait",
		"echo This boot attempt has been used; waiting for the next one",
		"sleep 30",
		"chain --replace --autofree " + http + PathBoot + bootID + "/ipxe?mac=" + hyphens(mac) + "&" + QueryAgain + "=1 || inc attempt",
		"iseq ${attempt} 10 || goto wait",
		"reboot",
		"",
	}, "\n"), nil
}

// LeaveScript ends the wait when the boot attempt is over: the firmware goes on to its next boot device, as it does when it
// asks DHCP while no attempt is open.
func LeaveScript() string { return "#!ipxe\necho The boot attempt is over\nexit\n" }

// UnknownScript is for machines that the rack does not know, under policy Halt.
func UnknownScript(mac [6]byte) string {
	return "#!ipxe\n:wait\necho Machine " + hyphens(mac) + " is not known to this rack: add a port with this address to a node\nsleep 60\ngoto wait\n"
}

func checkBase(base string) error {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Path != "" || u.RawQuery != "" || strings.ContainsAny(base, " $`\n\r\t{}|&;\"'\\") {
		return fault.New(fault.Invalid, "boot script", "base URL %q", base).WithHelp("use http://address:port without a path")
	}
	return nil
}

func isHex(s string) bool {
	if s == "" {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
