package image

import (
	"fmt"
	"io"
)

// File modes of cpio entries (stat.h).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

// Archive writes a newc cpio archive. Inode numbers count up from 1, times and owners are zero: the bytes depend on the
// entries and their order alone. The first error sticks; Close returns it.
type Archive struct {
	w    io.Writer
	ino  uint32
	size int64
	err  error
}

// NewArchive starts an archive.
func NewArchive(w io.Writer) *Archive { return &Archive{w: w} }

// Dir adds a directory. Parents must come first.
func (a *Archive) Dir(name string) { a.entry(name, modeDir|0o755, nil, 0, 0) }

// File adds a regular file with permission bits perm.
func (a *Archive) File(name string, perm uint32, data []byte) {
	a.entry(name, modeFile|perm, data, 0, 0)
}

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) { a.entry(name, modeLink|0o777, []byte(target), 0, 0) }

// CharDevice adds a character device.
func (a *Archive) CharDevice(name string, major, minor uint32) {
	a.entry(name, modeChar|0o600, nil, major, minor)
}

// Close writes the trailer and pads to 512 bytes.
func (a *Archive) Close() error {
	a.ino = 0
	a.header("TRAILER!!!", 0, 0, 0, 0, 0, 1)
	a.pad(512)
	return a.err
}

func (a *Archive) entry(name string, mode uint32, data []byte, major, minor uint32) {
	a.ino++
	links := uint32(1)
	if mode&modeDir != 0 && mode&modeFile != modeFile {
		links = 2
	}
	a.header(name, a.ino, mode, uint32(len(data)), major, minor, links)
	a.write(data)
	a.pad(4)
}

func (a *Archive) header(name string, ino, mode, size, major, minor, links uint32) {
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name))
	a.pad(4)
}

func (a *Archive) pad(to int64) {
	if rest := a.size % to; rest != 0 {
		a.write(make([]byte, to-rest))
	}
}

func (a *Archive) write(p []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(p)
	a.size += int64(n)
	a.err = err
}
