package image

import (
	"fmt"
	"io"
)

// File types and bits of a mode, as in <sys/stat.h>.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeChar = 0o020000
)

// entry is a member of the archive.
type entry struct {
	name         string // without a leading slash
	mode         uint32
	major, minor uint32 // of a device
	data         []byte
}

// writeCPIO writes the "new ASCII" format that the kernel unpacks (Documentation/driver-api/early-userspace/
// buffer-format.rst): owner root, no dates, inode numbers in order.
func writeCPIO(w io.Writer, entries []entry) error {
	pad := make([]byte, 4)
	put := func(e entry, ino int) error {
		header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			ino, e.mode, 0, 0, 1, 0, len(e.data), 0, 0, e.major, e.minor, len(e.name)+1, 0)
		head := header + e.name + "\x00"
		for _, part := range [][]byte{[]byte(head), pad[:-len(head)&3], e.data, pad[:-len(e.data)&3]} {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	}
	for i, e := range entries {
		if err := put(e, i+1); err != nil {
			return err
		}
	}
	return put(entry{name: "TRAILER!!!"}, 0)
}
