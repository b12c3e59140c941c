package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// serialLog is what the machine prints, with time stamps, in a file; waiters look for text in it.
type serialLog struct {
	path string

	mu      sync.Mutex
	file    *os.File
	start   time.Time
	line    bytes.Buffer
	lines   []string
	changed chan struct{} // closed and replaced with every line
}

func newSerialLog(path string) (*serialLog, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &serialLog{path: path, file: f, start: time.Now(), changed: make(chan struct{})}, nil
}

// Write implements io.Writer for QEMU's serial output.
func (s *serialLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range p {
		switch {
		case b == '\n':
			s.flush()
		case b >= 0x20 && b < 0x7f || b == '\t' || b == 0x1b || b >= 0x80:
			s.line.WriteByte(b)
		}
	}
	return len(p), nil
}

func (s *serialLog) mark(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	s.line.WriteString(text)
	s.flush()
}

func (s *serialLog) flush() {
	if s.line.Len() == 0 {
		return
	}
	text := s.line.String()
	s.line.Reset()
	s.lines = append(s.lines, text)
	fmt.Fprintf(s.file, "%8.3f %s\n", time.Since(s.start).Seconds(), text)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *serialLog) wait(ctx context.Context, text string) (string, error) {
	for seen := 0; ; {
		s.mu.Lock()
		lines, changed := s.lines[seen:], s.changed
		seen = len(s.lines)
		s.mu.Unlock()
		for _, l := range lines {
			if strings.Contains(l, text) {
				return l, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("%q was not printed on the serial console: %w (log: %s)", text, ctx.Err(), s.path)
		}
	}
}

func (s *serialLog) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	return s.file.Close()
}
