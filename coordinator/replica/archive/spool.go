package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// Spool holds what was read of an archive until all of it is verified. It belongs to one goroutine; close it.
type Spool struct {
	file   *os.File // nil in memory
	memory bytes.Buffer
	failed error // of a Write
}

// NewSpool makes one in a directory, or in memory if dir is empty.
func NewSpool(dir string) (*Spool, error) {
	if dir == "" {
		return &Spool{}, nil
	}
	f, err := os.CreateTemp(dir, "restore-*.tmp") // 0600
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil { // it ends with the process, however that ends
		return nil, errors.Join(err, f.Close())
	}
	return &Spool{file: f}, nil
}

// Write implements io.Writer.
func (s *Spool) Write(p []byte) (n int, err error) {
	if s.file == nil {
		return s.memory.Write(p)
	}
	n, err = s.file.Write(p)
	s.failed = errors.Join(s.failed, err)
	return n, err
}

// Failed is why a Write failed.
func (s *Spool) Failed() error { return s.failed }

// Rewind ends the writing; what was written is read.
func (s *Spool) Rewind() (io.Reader, error) {
	if s.file == nil {
		return &s.memory, nil
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return s.file, err
}

// Close ends the spool.
func (s *Spool) Close() {
	if s.file != nil {
		s.file.Close() // nobody needs it any more
	}
}
