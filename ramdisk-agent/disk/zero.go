package disk

import (
	"bytes"
	"context"
)

const zeroBuffer = 4 << 20 // bytes of one write of zeros

// Zero writes zeros to so many bytes of a disk from an offset on; done, if not nil, hears of each write.
func Zero(ctx context.Context, d Disk, off, size int64, done func(int64)) error {
	buf := Buffer(int(min(zeroBuffer, size)))
	for end := off + size; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf)), end-off)
		if _, err := d.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += n
		if done != nil {
			done(n)
		}
	}
	return nil
}

var zeros [64 << 10]byte // read-only

// AllZero tells whether every byte is zero.
func AllZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if !bytes.Equal(p[:n], zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
