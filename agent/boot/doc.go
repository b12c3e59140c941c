// Package boot decides what a machine is given when its firmware, or iPXE, asks the rack for a boot program.
//
// It is pure: Decide takes what the machine said of itself and what the rack holds about it, and returns a
// value; the rooms dhcp, tftp and httpboot carry the answer out. The iPXE scripts are made here too, from typed
// kernel arguments: there is no template, and no text of a user reaches a script without passing ParseArg.
//
// The path of a machine: its firmware asks by PXE and gets a program (undionly.kpxe, snponly.efi), or asks by
// UEFI HTTP Boot and gets that program's URL; the program, iPXE, asks again and gets the URL of its script, which
// names the boot attempt; the script fetches kernel and ramdisk. A machine without an open boot attempt is given
// an address and no boot file, so that its firmware goes on to its next boot device.
package boot
