// Command farrier-ramdisk runs on the machine being worked on: as /init of Farrier's own ramdisk, as a service
// of a live image, or as a process that plays a software machine. It only dials out, to its rack agents.
//
//	farrier-ramdisk --machine FILE|--this-machine [--cmdline TEXT|@FILE] [--exit-with-stdin] [--verbose]
//	farrier-ramdisk image --init BINARY --modules DIR|none --out FILE [--module NAME]... [--file NAME=FILE]...
//	farrier-ramdisk version
//
// Without a subcommand it reads the kernel command line (from --cmdline, else /proc/cmdline):
//
//	farrier.boot=ID farrier.secret=HEX farrier.agents=URL,URL farrier.pins=HEX,HEX BOOTIF=01-MAC
//
// As process 1 it first does what /init must do (ramdisk-agent/pid1). With --machine it plays the software machine
// that the file describes (ramdisk-agent/machine); with --this-machine, as in a service of a live image, it works on
// the disks of the machine it runs on. With --exit-with-stdin it dies when its standard input ends, so that it cannot
// outlive the one who plays its power supply.
//
// Logs go to standard error. The last line on standard output says why it ended, and the exit code too:
//
//	0  farrier-ramdisk: power off
//	3  farrier-ramdisk: reboot
//	4  standard input ended
//	1  failure; 2 wrong flags
package main
