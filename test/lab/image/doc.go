// Package image builds the disk image of the demonstration from fixed inputs, and looks at disks that it was written
// to. The image is a GPT with an EFI system partition (FAT32) and a partition of 256 MiB that carries a payload with
// its own checksum; the same version of this package makes the same bytes everywhere.
package image
