// Package image builds the ramdisk: a gzipped newc cpio archive that holds /init, the kernel modules it needs in the order
// to load them, and the few directories and device nodes that a kernel wants to find. The same input gives the same
// bytes, wherever it lies and whoever runs it.
package image
