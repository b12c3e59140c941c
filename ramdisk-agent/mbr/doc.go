// Package mbr reads and changes the partition table of a master boot record: four primary entries in sector 0, with
// addresses of 32 bits in sectors of the disk. What is inside an extended partition is left alone.
package mbr
