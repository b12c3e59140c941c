package steps

import (
	"context"
	"strconv"
	"sync"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/gpt"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

const (
	headSize   = mib // of the disk, written last, so that a part of an image never boots
	maxBarren  = 5   // rounds in a row that placed no chunk
	maxRewrite = 3   // times that one chunk is written again because it did not read back
)

type chunkState uint8

const (
	missing  chunkState = iota // not on the disk, as far as we know
	written                    // given to the disk
	verified                   // read back, and right
)

// span is a range of a disk in bytes.
type span struct{ off, len int64 }

// imageRun is what is known of an image on a disk. It outlives an attempt of the step: a chunk verified once in this
// boot is never written again.
type imageRun struct {
	flow   uint64
	diskID string
	man    Manifest
	facts  map[string]string // once done

	scanned     bool // the disk was searched for chunks in place
	checked     bool // the image fits this disk, as far as its first chunk tells
	invalidated bool // both ends were zeroed

	mu        sync.Mutex // guards the rest
	state     []chunkState
	rewrites  []uint8
	touched   []bool // written in this boot
	head      []byte // chunk 0, held back
	written   int64  // bytes of chunks that were written, once each
	rewritten int64  // bytes of chunks that were written again
	skipped   int64  // bytes of chunks that were in place and not written
}

func (r *imageRun) set(i int, s chunkState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state[i] = s
}

// wrote counts a chunk that was given to the disk.
func (r *imageRun) wrote(i int, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.touched[i] {
		r.rewritten += n
		return
	}
	r.touched[i] = true
	r.written += n
}

// found makes a chunk verified, and counts it if it was there without us.
func (r *imageRun) found(i int, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.touched[i] && r.state[i] != verified {
		r.skipped += n
	}
	r.state[i] = verified
}

// lose makes a chunk that is in place missing.
func (r *imageRun) lose(i int, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.touched[i] && r.state[i] == verified {
		r.skipped -= n
	}
	r.state[i] = missing
}

// list is the chunks that keep names.
func (r *imageRun) list(keep func(i int, s chunkState) bool) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []int
	for i, s := range r.state {
		if keep(i, s) {
			out = append(out, i)
		}
	}
	return out
}

// fetch is the chunks that must come from an agent.
func (r *imageRun) fetch() []int {
	return r.list(func(i int, s chunkState) bool {
		return s == missing && !r.man.zero(i) && (i != 0 || r.head == nil)
	})
}

// unverified is what the next reading back looks at: chunk 0 is read back after it was written, at the end.
func (r *imageRun) unverified() []int {
	return r.list(func(i int, s chunkState) bool {
		return s == written || s == missing && r.man.zero(i)
	})
}

// writer writes one image to one open disk.
type writer struct {
	r      *Runner
	d      disk.Disk
	info   disk.Info
	run    *imageRun
	path   string
	report progress.Report
	meter  *progress.Meter
	drive  bool // a config drive must have a place
}

// writeImage puts the image on the disk and shows that it is there: streamed, each chunk checked against its digest
// before it is written and again when it is read back, chunk 0 with the boot record last.
func (r *Runner) writeImage(ctx context.Context, o work.Order, report progress.Report) (result, error) {
	sha := o.Args["sha256"]
	man, err := r.cfg.Images.Manifest(ctx, sha)
	if err != nil {
		return result{}, fault.Wrap("get manifest", err)
	}
	if err := man.check(sha, o.Args["format"]); err != nil {
		return result{}, err
	}
	info, err := disk.Find(r.cfg.Host, o.Args["disk_id"])
	if err != nil {
		return result{}, err
	}
	if man.ContentSize > info.Size {
		return result{}, fault.New(fault.TooLarge, "write image", "the image has %d bytes, disk %s only %d", man.ContentSize, info, info.Size).
			WithHelp("nothing was written: choose a larger disk by the root device hints, or a smaller image")
	}
	run := r.runOf(o.Ref.Flow, info.ID, man)
	if run.facts != nil {
		return result{facts: run.facts}, nil
	}
	d, err := r.cfg.Host.Open(info) // checks the stable id again
	if err != nil {
		return result{}, err
	}
	defer d.Close()
	path := o.Image
	if path == "" {
		path = "/images/" + sha
	}
	w := &writer{r: r, d: d, info: info, run: run, path: path, report: report, drive: o.Args["config_drive"] == driveRequired}
	if err := w.write(ctx, o.Resumed || o.Ref.Attempt > 1); err != nil {
		return result{}, fault.Wrap("write image", err)
	}
	run.facts = map[string]string{"digest": sha, "bytes": strconv.FormatInt(man.ContentSize, 10), "disk_id": info.ID,
		"written": strconv.FormatInt(run.written, 10), "skipped": strconv.FormatInt(run.skipped, 10),
		"rewritten": strconv.FormatInt(run.rewritten, 10)}
	return result{facts: run.facts}, nil
}

func (r *Runner) runOf(flow uint64, diskID string, man Manifest) *imageRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.image; run != nil && run.flow == flow && run.diskID == diskID && run.man.SHA256 == man.SHA256 {
		return run
	}
	n := len(man.Chunks)
	r.image = &imageRun{flow: flow, diskID: diskID, man: man, state: make([]chunkState, n), rewrites: make([]uint8, n),
		touched: make([]bool, n)}
	return r.image
}

func (w *writer) write(ctx context.Context, resumed bool) error {
	if resumed && !w.run.scanned && !w.run.invalidated {
		if err := w.scan(ctx); err != nil {
			return err
		}
	}
	if len(w.run.list(func(_ int, s chunkState) bool { return s != verified })) > 0 {
		if err := w.check(ctx); err != nil {
			return err
		}
		if err := w.invalidate(ctx); err != nil {
			return err
		}
		if err := w.fill(ctx); err != nil {
			return err
		}
		if err := w.putHead(); err != nil {
			return err
		}
	}
	if err := w.relocate(); err != nil {
		return err
	}
	return w.d.Flush()
}

// scan looks for chunks that an earlier boot of the ramdisk left in place.
func (w *writer) scan(ctx context.Context) error {
	w.meter = progress.New(w.report, "look for what is in place", w.run.man.ContentSize)
	all := w.run.list(func(int, chunkState) bool { return true })
	err := w.readBack(ctx, all, func(i int, ok bool) error {
		if ok {
			_, n := w.run.man.chunk(i)
			w.run.found(i, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.run.scanned = true
	found := len(w.run.list(func(_ int, s chunkState) bool { return s == verified }))
	w.r.cfg.Log.Info("image found in place", "chunks", found, "of", len(all), "disk", w.info.ID)
	return nil
}

// check fetches the first chunk, which is held back, and looks at it: what is refused is refused before the first write.
func (w *writer) check(ctx context.Context) error {
	if w.run.checked {
		return nil
	}
	_, n := w.run.man.chunk(0)
	first := w.run.head
	if w.run.man.zero(0) {
		first = disk.Buffer(int(w.padded(n)))
	}
	for barren := 1; first == nil; barren++ {
		err := w.round(ctx, progress.New(w.report, "check", n), []int{0})
		first = w.run.head
		switch {
		case first != nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case !fault.Is(err, fault.Corrupt) || barren == maxBarren:
			return err
		default:
			w.r.cfg.Images.Distrust(err)
			if err := (retry.Backoff{}).Sleep(ctx, barren); err != nil {
				return err
			}
		}
	}
	if err := checkFit(preview{first, w.run.man.ContentSize, w.info}, w.drive); err != nil {
		return err
	}
	w.run.checked = true
	return nil
}

// invalidate makes the disk unbootable before it holds half an image: without the first MiB there is no boot record
// and no partition table, and the backup table at the end goes too, unless a chunk found in place is there.
func (w *writer) invalidate(ctx context.Context) error {
	if w.run.invalidated {
		return nil
	}
	_, n := w.run.man.chunk(0)
	w.run.lose(0, n)
	if err := disk.Zero(ctx, w.d, 0, min(headSize, w.run.man.ChunkSize, w.info.Size), nil); err != nil {
		return err
	}
	tail := max(w.info.Size-mib, 0)
	if w.run.scanned {
		tail = max(tail, w.padded(w.run.man.ContentSize))
	}
	if tail < w.info.Size {
		if err := disk.Zero(ctx, w.d, tail, w.info.Size-tail, nil); err != nil {
			return err
		}
	}
	if err := w.d.Flush(); err != nil {
		return err
	}
	w.run.invalidated = true
	w.discardZeros()
	return nil
}

// padded rounds up to whole sectors.
func (w *writer) padded(n int64) int64 {
	return (n + w.info.Sector - 1) / w.info.Sector * w.info.Sector
}

// discardZeros asks the disk to drop the stretches that are to read as zero. Whether it did shows when they are read
// back; then those that it kept are overwritten.
func (w *writer) discardZeros() {
	if !w.info.Discard {
		return
	}
	spans := w.runs(w.run.list(func(i int, s chunkState) bool { return s == missing && w.run.man.zero(i) && i != 0 }))
	for _, s := range spans {
		end := min(w.padded(s.off+s.len), w.info.Size)
		if err := w.d.Discard(s.off, end-s.off); err != nil {
			w.r.cfg.Log.Warn("discard of the image's zeros failed: they will be written", "disk", w.info.ID, "err", err)
			return
		}
	}
}

// runs joins neighbouring chunks.
func (w *writer) runs(chunks []int) []span {
	var out []span
	for _, i := range chunks {
		off, n := w.run.man.chunk(i)
		if k := len(out) - 1; k >= 0 && out[k].off+out[k].len == off {
			out[k].len += n
			continue
		}
		out = append(out, span{off, n})
	}
	return out
}

// fill repeats rounds of fetching, writing and reading back until every chunk but the first is verified.
func (w *writer) fill(ctx context.Context) error {
	for barren := 0; ; {
		before := w.inPlace()
		todo := w.run.fetch()
		m := progress.New(w.report, "write", w.run.man.ContentSize)
		m.Add(0, w.run.man.ContentSize-w.bytes(todo))
		roundErr := w.round(ctx, m, todo)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if roundErr != nil && !fault.Is(roundErr, fault.Corrupt) {
			return roundErr
		}
		if err := w.verify(ctx); err != nil {
			return err
		}
		if len(w.run.fetch()) == 0 && len(w.run.unverified()) == 0 {
			return nil
		}
		if roundErr != nil {
			w.r.cfg.Images.Distrust(roundErr)
		}
		if w.inPlace() > before {
			barren = 0
			continue
		}
		if barren++; barren >= maxBarren {
			if roundErr == nil {
				roundErr = fault.New(fault.Corrupt, "fetch image", "no chunk could be placed in %d rounds", barren)
			}
			return roundErr
		}
		if err := (retry.Backoff{}).Sleep(ctx, barren); err != nil {
			return err
		}
	}
}

func (w *writer) inPlace() int {
	n := len(w.run.list(func(_ int, s chunkState) bool { return s == verified }))
	if w.run.head != nil {
		n++
	}
	return n
}

// putHead writes chunk 0, its first MiB last of all, and reads it back.
func (w *writer) putHead() error {
	if w.run.head == nil { // all zeros, and verified as such
		return nil
	}
	head := w.run.head
	n := min(headSize, int64(len(head)))
	back := disk.Buffer(len(head))
	_, size := w.run.man.chunk(0)
	for range maxRewrite {
		for _, s := range []span{{n, int64(len(head)) - n}, {0, n}} {
			if s.len == 0 {
				continue
			}
			if _, err := w.d.WriteAt(head[s.off:s.off+s.len], s.off); err != nil {
				return err
			}
			if err := w.d.Flush(); err != nil {
				return err
			}
		}
		w.run.wrote(0, size)
		if _, err := w.d.ReadAt(back, 0); err != nil {
			return err
		}
		if w.run.man.matches(0, back[:size]) {
			w.run.set(0, verified)
			return nil
		}
	}
	return keepsNot(w.info, 0)
}

func keepsNot(info disk.Info, off int64) error {
	return fault.New(fault.Corrupt, "read back", "%s does not keep what is written at %d", info, off).
		WithHelp("the disk is failing: replace it, or choose another by the root device hints")
}

// relocate moves the backup of the partition table from the end of the image to the end of the disk.
func (w *writer) relocate() error {
	s := disk.NewSpan(w.d, w.info)
	t, err := gpt.Read(s)
	if err != nil {
		if !fault.Is(err, fault.NotFound) {
			w.r.cfg.Log.Warn("the image's partition table is damaged: left as it is", "err", err)
		}
		return nil
	}
	if err := t.Fit(w.info.Size); err != nil {
		return err
	}
	if err := t.Write(s); err != nil {
		return err
	}
	return gpt.Check(s)
}
