package snapshot

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A snapshot is hundreds of megabytes that nobody reads soon. Through the page cache each byte is copied once more, pages
// are taken from others, and the log's syncs wait behind their write-back.
const (
	directBuffer = 1 << 20
	directAlign  = 4096 // of addresses, offsets and lengths
)

// directFile writes a file from its beginning to its end past the page cache, or through it where the file system cannot
// do without. It belongs to one goroutine.
type directFile struct {
	*os.File
	buf  []byte // aligned
	n    int    // bytes of buf that wait
	size int64  // bytes written, those in buf too
}

// createDirect makes a file that must not be there yet.
func createDirect(path string) (*directFile, error) {
	const flags = os.O_CREATE | os.O_EXCL | os.O_WRONLY
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) { // some file systems make the file and refuse the flag
		if err = os.Remove(path); err == nil || errors.Is(err, os.ErrNotExist) {
			f, err = os.OpenFile(path, flags, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	raw := make([]byte, directBuffer+directAlign)
	skip := -int(uintptr(unsafe.Pointer(&raw[0]))) & (directAlign - 1) // the heap does not move what it holds
	return &directFile{File: f, buf: raw[skip : skip+directBuffer]}, nil
}

// Write implements io.Writer.
func (d *directFile) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		c := copy(d.buf[d.n:], p[done:])
		done += c
		d.n += c
		d.size += int64(c)
		if d.n == len(d.buf) {
			if err := d.flush(d.n); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}

// flush writes the first bytes of the buffer.
func (d *directFile) flush(n int) error {
	_, err := d.File.Write(d.buf[:n])
	if errors.Is(err, unix.EINVAL) { // it wants another alignment
		if _, err = unix.FcntlInt(d.Fd(), unix.F_SETFL, 0); err == nil {
			_, err = d.File.Write(d.buf[:n])
		}
	}
	d.n = 0
	return err
}

// finish writes the rest, and has all of it on disk.
func (d *directFile) finish() error {
	if d.n > 0 {
		whole := (d.n + directAlign - 1) &^ (directAlign - 1)
		clear(d.buf[d.n:whole])
		if err := d.flush(whole); err != nil {
			return err
		}
		if err := d.Truncate(d.size); err != nil {
			return err
		}
	}
	return d.Sync()
}
