package steps

import (
	"context"
	"errors"
	"github.com/klauspost/compress/gzip"
	"io"
	"log/slog"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
)

// stream reads a range of the image file and survives its agents: a cut is followed by a range request for the rest,
// to the next agent. One goroutine at a time.
type stream struct {
	ctx      context.Context
	images   Images
	path     string
	off, end int64
	stall    time.Duration
	log      *slog.Logger

	body     io.ReadCloser
	failures int
	since    time.Time // of the first failure in a row
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.off >= s.end {
			return 0, io.EOF
		}
		n, err := s.try(p[:min(int64(len(p)), s.end-s.off)])
		if n > 0 {
			s.off += int64(n)
			s.failures = 0
			if err != nil {
				s.drop()
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		s.drop()
		if err := s.wait(err); err != nil {
			return 0, err
		}
	}
}

func (s *stream) try(p []byte) (int, error) {
	if s.body == nil {
		body, err := s.images.Open(s.ctx, s.path, s.off, s.end-s.off)
		if err != nil {
			return 0, err
		}
		s.body = body
	}
	n, err := s.body.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		err = fault.New(fault.Unavailable, "read image", "it ends at %d of %d bytes", s.off, s.end)
		s.images.Distrust(err)
	}
	return n, err
}

// wait backs off after a failure; it gives up when the image has stood still for too long.
func (s *stream) wait(cause error) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.failures == 0 {
		s.since = time.Now()
	}
	s.failures++
	if time.Since(s.since) > s.stall {
		return fault.New(fault.Unavailable, "read image", "no agent has sent a byte for %s: %w", s.stall, cause)
	}
	s.log.Warn("image stream cut: going on from the next agent", "offset", s.off, "failures", s.failures, "err", cause)
	return retry.Backoff{}.Sleep(s.ctx, s.failures)
}

func (s *stream) drop() {
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
}

// decompress reads the content of a file in a format.
func decompress(format string, r io.Reader, workers int) (io.ReadCloser, error) {
	switch format {
	case FormatRawGzip:
		z, err := gzip.NewReader(r)
		return z, err
	case FormatRawZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(max(workers, 2)), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(128*mib))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(r), nil
	}
}
