package bmc

import (
	"context"
	"log/slog"
)

// PowerState is the chassis power as it was read. The zero PowerState is unknown.
type PowerState uint8

// The power states. A BMC that reports PoweringOn or PoweringOff is read again until it settles.
const (
	PowerUnknown PowerState = iota
	PowerOn
	PowerOff
)

// String is Ironic's text, as facts and the API carry it; "" when unknown.
func (p PowerState) String() string {
	switch p {
	case PowerOn:
		return "power on"
	case PowerOff:
		return "power off"
	default:
		return ""
	}
}

// ParsePower reads Ironic's text; everything else is PowerUnknown.
func ParsePower(text string) PowerState {
	switch text {
	case "power on":
		return PowerOn
	case "power off":
		return PowerOff
	default:
		return PowerUnknown
	}
}

// Device is where a machine boots from. The zero Device is none: the firmware's own order.
type Device uint8

// The boot devices, Ironic's common/boot_devices.py.
const (
	DeviceNone Device = iota
	DevicePXE
	DeviceDisk
	DeviceCDROM
	DeviceBIOS
	DeviceHTTP // UEFI HTTP boot
	endOfDevices
)

var deviceText = [...]string{ // read-only
	DeviceNone: "none", DevicePXE: "pxe", DeviceDisk: "disk", DeviceCDROM: "cdrom", DeviceBIOS: "bios", DeviceHTTP: "uefihttp",
}

// String is the device's text in step arguments and facts.
func (d Device) String() string {
	if d < endOfDevices {
		return deviceText[d]
	}
	return "unknown"
}

// ParseDevice reads a device's text; ok is false for unknown text.
func ParseDevice(text string) (d Device, ok bool) {
	for d := range endOfDevices {
		if deviceText[d] == text {
			return d, true
		}
	}
	return 0, false
}

// Mode is the firmware mode of a boot.
type Mode uint8

// The boot modes. ModeDefault leaves the BMC's setting alone.
const (
	ModeDefault Mode = iota
	ModeLegacy
	ModeUEFI
)

// String is Ironic's text: "bios", "uefi", "" for the default.
func (m Mode) String() string {
	switch m {
	case ModeLegacy:
		return "bios"
	case ModeUEFI:
		return "uefi"
	default:
		return ""
	}
}

// ParseMode reads Ironic's text; unknown text is ModeDefault.
func ParseMode(text string) Mode {
	switch text {
	case "bios", "legacy":
		return ModeLegacy
	case "uefi":
		return ModeUEFI
	default:
		return ModeDefault
	}
}

// Boot is a boot override: which device, for one boot or until changed, in which mode.
type Boot struct {
	Device     Device
	Persistent bool // false: for the next boot only
	Mode       Mode
}

// Power controls the chassis power of one node.
type Power interface {
	// Power reads the state. PoweringOn and PoweringOff read as PowerUnknown.
	Power(ctx context.Context) (PowerState, error)
	// SetPower brings the chassis to want, hard, and returns nil once it has been read back so: a set, it may be
	// repeated. It sends nothing when the chassis is so already. Timeout when the deadline of ctx passes first.
	SetPower(ctx context.Context, want PowerState) error
	// SoftOff asks the operating system to shut down and returns when the BMC has taken the request; the chassis
	// is off when Power says so. Nil when it is off already.
	SoftOff(ctx context.Context) error
	// Reset restarts a running machine without taking power away. Never repeat it blindly.
	Reset(ctx context.Context) error
	// Cycle takes power away and gives it back. Never repeat it blindly.
	Cycle(ctx context.Context) error
}

// BootDevice controls what one node boots from.
type BootDevice interface {
	// BootDevice reads the override; Device is DeviceNone when there is none.
	BootDevice(ctx context.Context) (Boot, error)
	// SetBootDevice sets the override and returns nil once it has been read back so: a set, it may be repeated.
	// A Mode that the BMC cannot change is not an error as long as the device is accepted.
	SetBootDevice(ctx context.Context, want Boot) error
}

// Describer tells who the machine is and what the BMC knows to be in it.
type Describer interface {
	Identity(ctx context.Context) (Identity, error)
	Inventory(ctx context.Context) (Inventory, error)
}

// Fencer is an optional ability of a Client: a session that a later owner can end, so that a request which is
// still on its way is refused when it arrives (401). Redfish with session authentication has it.
type Fencer interface {
	// Fence opens this client's session, hands its URI to record, then deletes the sessions named by previous (other
	// owners' URIs; one that is gone is fine). A session that is opened later, in place of one that ended, is handed
	// to record before the first change is sent under it. If record fails the new session is deleted and its error
	// returned. fenced is false, without an error, when the BMC offers basic authentication only: there is no fence
	// then.
	Fence(ctx context.Context, previous []string, record func(ctx context.Context, uri string) error) (fenced bool, err error)
}

// Client is one node's BMC. It may also be a Fencer.
type Client interface {
	Power
	BootDevice
	Describer
	// Close ends the session, if there is one, and the connections. It takes its own short deadline from ctx,
	// which should not be one that is cancelled already: a session that stays open fills the BMC.
	Close(ctx context.Context) error
}

// Factory makes clients of one hardware type. It is safe for concurrent use.
type Factory interface {
	// Open checks driver_info (fault.Invalid, with a FieldDetail) and makes a client. It sends nothing.
	Open(t Target) (Client, error)
}

// Drivers maps a hardware type ("redfish", "fake-hardware") to its factory.
type Drivers map[string]Factory

// Target names a node's BMC. DriverInfo holds credentials in clear: it is never logged and never stored.
type Target struct {
	Node       string // UUID
	DriverInfo map[string]string
	Sessions   []string // URIs of sessions that earlier owners may have open, to be ended before the first effect
}

// LogValue keeps credentials out of logs.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.Node) }

// String keeps credentials out of error texts.
func (t Target) String() string { return "bmc of " + t.Node }

// Identity is what tells this machine from another. Empty fields were not given by the BMC.
type Identity struct {
	UUID         string // SMBIOS UUID, lower case
	Serial       string
	Manufacturer string
	Model        string
}

// Facts is the identity as a step's facts: system_uuid, serial, manufacturer, model.
func (i Identity) Facts() map[string]string {
	return map[string]string{"system_uuid": i.UUID, "serial": i.Serial, "manufacturer": i.Manufacturer, "model": i.Model}
}

// Inventory is what the BMC knows without the ramdisk.
type Inventory struct {
	Identity
	BIOSVersion string
	CPUs        int    // sockets
	CPUModel    string // of the first
	MemoryBytes uint64
	NICs        []NIC
	Disks       []Disk
}

// NIC is a network interface that the BMC sees.
type NIC struct {
	Name string
	MAC  string // lower case with colons
	Link bool   // the link is up
}

// Disk is a drive that the BMC sees.
type Disk struct {
	Name, Model, Serial string
	Bytes               uint64
}
