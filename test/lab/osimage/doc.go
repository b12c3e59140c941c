// Package osimage makes a small operating system that boots from a disk: GPT, syslinux in an EFI system partition, Debian's
// kernel and a userland of Debian's static busybox. Booted, it finds the config drive, and prints the node's UUID and the
// nonce of its user data on the serial console. A partition beside it carries markers, so that a wipe can be proved.
//
// Needs Debian's syslinux, mtools and busybox-static, and a kernel package that was unpacked; no root, no mount.
package osimage
