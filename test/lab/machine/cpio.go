package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/gzip"
)

// findInit reads a gzipped cpio archive of format newc to its end, so that a cut or damaged one is noticed, and
// returns the file named init. The format is that of the kernel's Documentation/driver-api/early-userspace.
func findInit(ramdisk []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(ramdisk))
	if err != nil {
		return nil, fmt.Errorf("the ramdisk is not gzip: %w", err)
	}
	var init []byte
	for {
		name, body, err := nextEntry(z)
		if err != nil {
			return nil, fmt.Errorf("read ramdisk: %w", err)
		}
		switch name {
		case "TRAILER!!!":
			if _, err := io.Copy(io.Discard, io.LimitReader(z, 1<<20)); err != nil { // checks gzip's own sum
				return nil, fmt.Errorf("read ramdisk: %w", err)
			}
			if init == nil {
				return nil, errors.New("the ramdisk has no /init")
			}
			return init, nil
		case "init", "/init", "./init":
			init = body
		}
	}
}

func nextEntry(r io.Reader) (name string, body []byte, err error) {
	var head [110]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", nil, err
	}
	if string(head[:6]) != "070701" {
		return "", nil, errors.New("not a newc archive")
	}
	field := func(i int) int {
		n, perr := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
		if perr != nil {
			err = perr
		}
		return int(n)
	}
	size, nameSize := field(6), field(11)
	if err != nil || size > maxRamdisk || nameSize == 0 || nameSize > 4096 {
		return "", nil, errors.New("bad entry")
	}
	buf := make([]byte, nameSize+pad(len(head)+nameSize))
	if _, err := io.ReadFull(r, buf); err != nil {
		return "", nil, err
	}
	body = make([]byte, size+pad(size))
	if _, err := io.ReadFull(r, body); err != nil {
		return "", nil, err
	}
	return string(buf[:nameSize-1]), body[:size], nil
}

// pad is what brings n up to a multiple of four.
func pad(n int) int { return (4 - n%4) % 4 }
