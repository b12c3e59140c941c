// Package lab holds racks without hardware: BMC emulators (redfish), machines in software (machine) and in QEMU
// (qemu), and the images that they boot (image). A BMC emulator drives any Machine; what runs in the lab is
// simulated hardware and says so.
package lab

// Boot targets, DMTF's ComputerSystem.BootSource.
const (
	BootNone = "None" // the firmware's own order: disk first
	BootPXE  = "Pxe"
	BootDisk = "Hdd"
	BootHTTP = "UefiHttp"
)

// Boot is the boot override of a machine.
type Boot struct {
	Target string // BootNone: no override
	Once   bool   // used up by the next start
	Mode   string // "UEFI", "Legacy" or ""
}

// Power is a chassis. Calls come one at a time. None waits for an operating system.
type Power interface {
	Powered() bool
	PowerOn() error  // no effect when on
	PowerOff() error // hard, at once; returns when nothing of the machine runs any more
	SoftOff() error  // asks what runs to stop; Powered tells when it has
	Reset() error    // hard restart without power loss; an error when off
}

// Machine is what a BMC emulator drives.
type Machine interface {
	Power
	Boot() Boot
	SetBoot(Boot) error
	Board() Board
}

// Board is what the BMC knows of the machine.
type Board struct {
	UUID, Serial, Manufacturer, Model string
	MACs                              []string
	MemoryBytes                       uint64
	CPUs                              int
	Disks                             []Disk
}

// Disk is one drive of a Board.
type Disk struct {
	Name, Serial, Model string
	Bytes               uint64
}
