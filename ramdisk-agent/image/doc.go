// Package image builds the initial ramdisk: a gzip-compressed cpio archive (newc, the format of the Linux kernel's
// buffer-format document) with farrier-ramdisk as /init and the kernel modules that it loads, in order. The same input
// gives the same bytes, wherever and whenever it is built.
package image
