// Package inspect takes a machine's inventory from /sys and /proc with small readers of its own: CPU, memory, disks
// with stable ids, NICs, PCI devices, SMBIOS strings, boot mode. Nothing is guessed: what cannot be read is left out.
package inspect
