// Package fat builds FAT file systems in memory with long file names, for small data on disks that ISO 9660 does not fit:
// Linux mounts an ISO image only where logical sectors have at most 2048 bytes. The same files make the same bytes.
package fat
