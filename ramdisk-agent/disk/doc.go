// Package disk is the one door to disks: a Host lists them with stable ids and opens them, a Disk is read and
// written in whole sectors. Two hosts exist: Linux (block devices, O_DIRECT) and Software (files described by
// ramdisk-agent/machine). The ramdisk agent starts no other process, so there is no interface for that.
package disk
