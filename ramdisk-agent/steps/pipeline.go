package steps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
)

// piece is a chunk in memory, padded to whole sectors.
type piece struct {
	chunk int
	buf   []byte
}

// pipe is one round: a producer fills buffers, workers hash and write them. The buffers bound the memory.
type pipe struct {
	w      *writer
	free   chan []byte
	filled chan piece
	wrong  atomic.Int64 // chunks that failed their digest
}

// guard turns a panic of a goroutine into an error.
func guard(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fault.New(fault.Internal, "run step", "panic: %v", p)
			}
		}()
		return f()
	}
}

// round fetches chunks and writes them, all but the first. fault.Corrupt means that bytes were wrong, and that another
// agent may have the right ones.
func (w *writer) round(ctx context.Context, m *progress.Meter, todo []int) error {
	if len(todo) == 0 {
		return nil
	}
	w.meter = m
	defer m.End()
	workers := w.r.cfg.Workers
	p := &pipe{w: w, free: make(chan []byte, 2*workers+2), filled: make(chan piece, workers)}
	size := int(w.padded(min(w.run.man.ChunkSize, w.run.man.ContentSize)))
	for range cap(p.free) {
		p.free <- disk.Buffer(size)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(guard(func() error {
		defer close(p.filled)
		return p.produce(gctx, todo)
	}))
	for range workers {
		g.Go(guard(func() error { return p.consume(gctx) }))
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if n := p.wrong.Load(); n > 0 {
		return fault.New(fault.Corrupt, "check image", "%d chunks differ from their digests", n).
			WithHelp("the image served is not the one in the manifest: remove it from the agent's cache, then deploy again")
	}
	return nil
}

func (w *writer) bytes(chunks []int) int64 {
	total := int64(0)
	for _, i := range chunks {
		_, n := w.run.man.chunk(i)
		total += n
	}
	return total
}

func (p *pipe) produce(ctx context.Context, todo []int) error {
	if p.w.run.man.Format == FormatRaw {
		return p.produceRaw(ctx, todo)
	}
	return p.produceDecompressed(ctx, todo)
}

func (p *pipe) open(ctx context.Context, off, end int64) *stream {
	return &stream{ctx: ctx, images: p.w.r.cfg.Images, path: p.w.path, off: off, end: end, stall: p.w.r.cfg.Stall, log: p.w.r.cfg.Log}
}

// produceRaw asks for each stretch of missing chunks by its range.
func (p *pipe) produceRaw(ctx context.Context, todo []int) error {
	next := 0
	for _, run := range p.w.runs(todo) {
		s := p.open(ctx, run.off, run.off+run.len)
		for s.off < s.end {
			if err := p.read(ctx, s, todo[next]); err != nil {
				s.drop()
				return err
			}
			next++
		}
		s.drop()
	}
	return nil
}

// produceDecompressed reads the file from its start, and hands on what is missing.
func (p *pipe) produceDecompressed(ctx context.Context, todo []int) error {
	man := &p.w.run.man
	s := p.open(ctx, 0, man.FileSize)
	defer s.drop()
	z, err := decompress(man.Format, s, p.w.r.cfg.Workers)
	if err != nil {
		return broken(ctx, err)
	}
	defer z.Close()
	skip := make([]byte, 256<<10)
	at := 0
	for _, i := range todo {
		for ; at < i; at++ {
			_, n := man.chunk(at)
			if _, err := io.CopyBuffer(writeOnly{}, io.LimitReader(z, n), skip); err != nil {
				return broken(ctx, err)
			}
		}
		if err := p.read(ctx, z, i); err != nil {
			return err
		}
		at++
	}
	if at == len(man.Chunks) {
		if n, err := io.ReadFull(z, skip[:1]); n > 0 || !errors.Is(err, io.EOF) {
			return fault.New(fault.Corrupt, "decompress image", "it holds more than the %d bytes of its manifest, or ends badly: %w", man.ContentSize, orMore(err))
		}
	}
	return nil
}

func orMore(err error) error {
	if err == nil {
		return errors.New("more bytes follow")
	}
	return err
}

type writeOnly struct{}

func (writeOnly) Write(p []byte) (int, error) { return len(p), nil }

// broken is an error of the decompressor: wrong bytes, unless the stream below gave up.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fault.Is(err, fault.Unavailable) {
		return err
	}
	return fault.New(fault.Corrupt, "decompress image", "%w", err)
}

// read fills a buffer with chunk i and hands it to the workers.
func (p *pipe) read(ctx context.Context, from io.Reader, i int) error {
	_, n := p.w.run.man.chunk(i)
	var buf []byte
	select {
	case buf = <-p.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := io.ReadFull(from, buf[:n]); err != nil {
		return broken(ctx, fmt.Errorf("chunk %d: %w", i, err))
	}
	padded := p.w.padded(n)
	clear(buf[n:padded])
	select {
	case p.filled <- piece{i, buf[:padded]}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipe) consume(ctx context.Context) error {
	for pc := range p.filled {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.place(pc); err != nil {
			return err
		}
		p.free <- pc.buf[:cap(pc.buf)]
	}
	return nil
}

// place writes a chunk that has the right digest; chunk 0 is kept in memory.
func (p *pipe) place(pc piece) error {
	run := p.w.run
	off, n := run.man.chunk(pc.chunk)
	if !run.man.matches(pc.chunk, pc.buf[:n]) {
		p.wrong.Add(1)
		p.w.r.cfg.Log.Warn("chunk fails its digest: not written", "chunk", pc.chunk)
		return nil
	}
	if pc.chunk == 0 {
		head := disk.Buffer(len(pc.buf))
		copy(head, pc.buf)
		run.mu.Lock()
		run.head = head
		run.mu.Unlock()
		p.w.meter.Add(n, 0)
		return nil
	}
	if _, err := p.w.d.WriteAt(pc.buf, off); err != nil {
		return err
	}
	run.wrote(pc.chunk, n)
	run.set(pc.chunk, written)
	p.w.meter.Add(n, 0)
	return nil
}

// verify reads back what was written and what should be zero. Zeros that are not there are written; anything else
// that differs is missing again.
func (w *writer) verify(ctx context.Context) error {
	if err := w.d.Flush(); err != nil {
		return err
	}
	w.meter = progress.New(w.report, "verify", w.run.man.ContentSize)
	todo := w.run.unverified()
	w.meter.Add(0, w.run.man.ContentSize-w.bytes(todo))
	defer w.meter.End()
	return w.readBack(ctx, todo, func(i int, ok bool) error {
		off, n := w.run.man.chunk(i)
		if ok {
			w.run.found(i, n)
			return nil
		}
		w.run.mu.Lock()
		w.run.rewrites[i]++
		tries := w.run.rewrites[i]
		w.run.mu.Unlock()
		if tries > maxRewrite {
			return keepsNot(w.info, off)
		}
		if !w.run.man.zero(i) {
			w.run.set(i, missing)
			return nil
		}
		if err := disk.Zero(ctx, w.d, off, w.padded(n), nil); err != nil {
			return err
		}
		w.run.wrote(i, n)
		w.run.set(i, written)
		return nil
	})
}

// readBack reads chunks with all workers and tells whether each is right. then may be called from several goroutines.
func (w *writer) readBack(ctx context.Context, chunks []int, then func(i int, ok bool) error) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	size := int(w.padded(min(w.run.man.ChunkSize, w.run.man.ContentSize)))
	for range min(w.r.cfg.Workers, max(len(chunks), 1)) {
		g.Go(guard(func() error {
			buf := disk.Buffer(size)
			for {
				k := int(next.Add(1)) - 1
				if k >= len(chunks) {
					return nil
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				i := chunks[k]
				off, n := w.run.man.chunk(i)
				if _, err := w.d.ReadAt(buf[:w.padded(n)], off); err != nil {
					return err
				}
				if err := then(i, w.run.man.matches(i, buf[:n])); err != nil {
					return err
				}
				w.meter.Add(n, 0)
			}
		}))
	}
	return g.Wait()
}
