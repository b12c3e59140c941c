// Package qemu is a machine of the lab under QEMU's software emulation: real firmware (SeaBIOS and the iPXE of its network
// card's ROM), a real kernel, a disk that is a file. A BMC emulator drives it as any lab.Machine.
//
// Needs Debian's qemu-system-x86 and ipxe-qemu, and a tap on a bridge (netns).
package qemu
