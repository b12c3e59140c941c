// Package machine is a computer in software, for racks without hardware: simulated, without root and without a
// virtual machine. Its firmware really asks the rack: DHCP as a client behind a relay (giaddr is its own address of
// 127.77.0.0/16; the relay has several helper addresses, one per agent), TFTP for the boot program, DHCP again as
// iPXE, HTTP for the script, kernel and ramdisk. It does not execute the kernel, which is a marked stand-in: it takes
// /init out of the real ramdisk and runs it as a process of its own, against a disk that is a file.
//
// A Machine is a lab.Machine: a BMC emulator drives its power and boot override.
package machine
