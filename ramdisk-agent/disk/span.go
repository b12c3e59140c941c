package disk

import "io"

// Span is a disk for small reads and writes at any offset: whole sectors are read, changed and written back. One
// goroutine at a time.
type Span struct {
	d      Disk
	size   int64
	sector int64
}

// NewSpan makes a Span of an open disk.
func NewSpan(d Disk, info Info) *Span { return &Span{d: d, size: info.Size, sector: info.Sector} }

// Size is the disk's size in bytes.
func (s *Span) Size() int64 { return s.size }

// Sector is the disk's logical sector in bytes.
func (s *Span) Sector() int64 { return s.sector }

// ReadAt implements io.ReaderAt.
func (s *Span) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > s.size {
		return 0, io.ErrUnexpectedEOF
	}
	buf, start, err := s.load(len(p), off)
	if err != nil {
		return 0, err
	}
	return copy(p, buf[off-start:]), nil
}

// WriteAt implements io.WriterAt.
func (s *Span) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > s.size {
		return 0, io.ErrShortWrite
	}
	buf, start, err := s.load(len(p), off)
	if err != nil {
		return 0, err
	}
	copy(buf[off-start:], p)
	if _, err := s.d.WriteAt(buf, start); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *Span) load(n int, off int64) (buf []byte, start int64, err error) {
	start = off / s.sector * s.sector
	end := (off + int64(n) + s.sector - 1) / s.sector * s.sector
	buf = Buffer(int(end - start))
	_, err = s.d.ReadAt(buf, start)
	return buf, start, err
}
