// Package tftp serves boot programs to firmware by TFTP (RFC 1350, with blksize and tsize), and iPXE scripts to ROMs that
// have no HTTP. It reads from a map in memory and opens no file: a name is a key, and one that is not there is "file
// not found" at once, which firmware that probes for optional files (shim, GRUB) waits for.
//
// Firmware aborts transfers as a matter of course: it asks for the size, says "user aborted", and asks again. That is
// not a failure. Writes are refused.
package tftp
