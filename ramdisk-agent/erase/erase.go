package erase

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/gpt"
	"github.com/farrier-project/farrier/ramdisk-agent/mbr"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
)

const (
	mib         = 1 << 20
	eraseAtOnce = 4        // flash disks in work: they share the bus. Hard disks are slower than it, and go all at once
	sampleSize  = 4096     // bytes of a sample
	sampleCount = 128      // samples of a disk, spread evenly, besides the first and last MiB
	btrfsMirror = 64 * mib // second superblock of btrfs
)

// Eraser erases the fixed disks of a machine. Facts name the method, the disks, how many places were looked at, and what was left
// as it is.
type Eraser struct {
	Host disk.Host
	Log  *slog.Logger
}

// span is a range of a disk in bytes.
type span struct{ off, len int64 }

// Metadata zeroes what tells a boot loader or a kernel that there is something: both ends of every disk and of
// every partition in its table (boot records, GPT, superblocks of ext, XFS, LVM, RAID, ZFS, btrfs).
func (e *Eraser) Metadata(ctx context.Context, args map[string]string) (facts map[string]string, err error) {
	plan, err := e.plan(args)
	if err != nil {
		return nil, err
	}
	return e.each(ctx, plan, func(ctx context.Context, d disk.Disk, info disk.Info) (string, int64, error) {
		spans := metadataSpans(d, info)
		for _, s := range spans {
			if err := disk.Zero(ctx, d, s.off, s.len, nil); err != nil {
				return "", 0, err
			}
		}
		if err := d.Flush(); err != nil {
			return "", 0, err
		}
		for _, s := range spans {
			if err := mustBeZero(ctx, d, s); err != nil {
				return "", 0, err
			}
		}
		return "metadata", int64(len(spans)), nil
	})
}

func metadataSpans(d disk.Disk, info disk.Info) []span {
	ends := func(start, size int64) []span {
		head := min(int64(mib), size)
		s := []span{{start, head}, {start + size - head, head}}
		if size >= btrfsMirror+mib {
			s = append(s, span{start + btrfsMirror, 64 << 10})
		}
		return s
	}
	var spans []span
	for _, p := range partitions(disk.NewSpan(d, info)) {
		if p.off >= 0 && p.off < info.Size && p.len > 0 {
			spans = append(spans, ends(p.off, min(p.len, info.Size-p.off))...) // what a table says may be more than the disk has
		}
	}
	spans = append(spans, ends(0, info.Size)...) // last: a cut before it leaves the table to find the partitions by
	for i := range spans {
		end := (spans[i].off + spans[i].len + info.Sector - 1) / info.Sector * info.Sector
		spans[i].off = spans[i].off / info.Sector * info.Sector
		spans[i].len = min(end, info.Size) - spans[i].off
	}
	return spans
}

// partitions are those of a GPT, or the primary ones of an MBR; none when the disk has no table that can be read.
func partitions(d gpt.Disk) []span {
	var out []span
	if t, err := gpt.Read(d); err == nil {
		for _, p := range t.Partitions() {
			out = append(out, span{p.Start, p.Size})
		}
		return out
	}
	if t, err := mbr.Read(d); err == nil {
		for _, p := range t.Partitions() {
			out = append(out, span{p.Start, p.Size})
		}
	}
	return out
}

// Devices gives every disk back to its device by discard, if that can be shown to have worked; otherwise it
// overwrites it with zeros. Argument method: auto (default), discard (no overwriting: fails instead), overwrite.
func (e *Eraser) Devices(ctx context.Context, args map[string]string, report progress.Report) (facts map[string]string, err error) {
	method := args["method"]
	switch method {
	case "", "auto", "discard", "overwrite":
	default:
		return nil, fault.New(fault.Invalid, "erase devices", "method %q is not auto, discard or overwrite", method)
	}
	plan, err := e.plan(args)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, d := range plan.disks {
		total += d.Size
	}
	m := progress.New(report, "erase", total)
	defer m.End()
	return e.each(ctx, plan, func(ctx context.Context, d disk.Disk, info disk.Info) (string, int64, error) {
		if method != "overwrite" && info.Discard {
			n, err := discardVerified(ctx, d, info)
			switch {
			case err == nil:
				m.Add(info.Size, 0)
				return "discard", n, nil
			case ctx.Err() != nil:
				return "", 0, err
			case method == "discard":
				return "", 0, fault.Wrap("discard "+info.Name, err)
			}
			e.Log.Warn("discard did not erase: overwriting", "disk", info.ID, "err", err)
		} else if method == "discard" {
			return "", 0, fault.New(fault.Unsupported, "erase devices", "%s does not discard", info).
				WithHelp("set the erase method to auto or overwrite")
		}
		if err := disk.Zero(ctx, d, 0, info.Size, func(n int64) { m.Add(n, 0) }); err != nil {
			return "", 0, err
		}
		if err := d.Flush(); err != nil {
			return "", 0, err
		}
		n, err := sample(ctx, d, info)
		return "overwrite", n, err
	})
}

// plan is which disks are erased, and the facts that name what is not.
type plan struct {
	disks []disk.Info
	facts map[string]string
}

func (e *Eraser) plan(args map[string]string) (plan, error) {
	disks, err := e.Host.Disks()
	if err != nil {
		return plan{}, err
	}
	undriven, err := e.Host.Undriven()
	if err != nil {
		return plan{}, err
	}
	return planOf(disks, undriven, args)
}

// planOf takes every fixed disk. What could keep a tenant's data unseen is refused: a disk that takes no writes, and a
// controller whose disks are not there for want of a driver. With the arguments skip_read_only and skip_undriven set to
// true they are left as they are, as removable media always are; the facts read_only, undriven and removable name them.
func planOf(disks []disk.Info, undriven []disk.Controller, args map[string]string) (plan, error) {
	skip := map[string]bool{}
	for _, name := range []string{"skip_read_only", "skip_undriven"} {
		if text := args[name]; text != "" {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return plan{}, fault.New(fault.Invalid, "erase devices", "%s: %q is not true or false", name, text).
					WithDetail(&fault.FieldDetail{Field: name})
			}
			skip[name] = b
		}
	}
	p := plan{facts: map[string]string{}}
	var locked []disk.Info
	for _, d := range disks {
		switch {
		case d.Removable:
			p.name("removable", d.ID)
		case d.ReadOnly:
			locked = append(locked, d)
			p.name("read_only", d.ID)
		default:
			p.disks = append(p.disks, d)
		}
	}
	if len(locked) > 0 && !skip["skip_read_only"] {
		return plan{}, fault.New(fault.Unsupported, "erase devices", "read-only, so that their data would stay: %s", disk.List(locked)).
			WithHelp("lift the write protection, or run the step by hand with skip_read_only=true")
	}
	for _, c := range undriven {
		p.name("undriven", c.String())
	}
	if len(undriven) > 0 && !skip["skip_undriven"] {
		return plan{}, fault.New(fault.Unsupported, "erase devices", "no driver for storage controller %s, so that the data behind it would stay", p.facts["undriven"]).
			WithHelp("build the ramdisk with its module (farrier-ramdisk image --module), or run the step by hand with skip_undriven=true if nothing is behind it")
	}
	return p, nil
}

// maxNamed bounds a fact that names what was skipped, in bytes.
const maxNamed = 512

func (p *plan) name(fact, what string) {
	switch have := p.facts[fact]; {
	case have == "":
		p.facts[fact] = what
	case len(have)+len(what) < maxNamed:
		p.facts[fact] = have + "," + what
	case !strings.HasSuffix(have, ",..."):
		p.facts[fact] = have + ",..."
	}
}

// each runs erase on every disk of the plan, many at once, and makes the facts. A plan without a disk is a failure: what was
// not seen (a driver is missing, the disk fell off its bus) was not erased.
func (e *Eraser) each(ctx context.Context, plan plan, erase func(context.Context, disk.Disk, disk.Info) (method string, sampled int64, err error)) (map[string]string, error) {
	disks := plan.disks
	if len(disks) == 0 {
		return nil, fault.New(fault.NotFound, "erase devices", "the ramdisk sees no disk").
			WithHelp("look at the inventory: the controller's driver may be missing from the ramdisk, or the disk is dead")
	}
	methods, ids := make([]string, len(disks)), make([]string, len(disks))
	var sampled atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	flash := make(chan struct{}, eraseAtOnce)
	for i, info := range disks {
		g.Go(func() error {
			if !info.Rotational {
				select {
				case flash <- struct{}{}:
					defer func() { <-flash }()
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			d, err := e.Host.Open(info)
			if err != nil {
				return err
			}
			defer d.Close()
			method, n, err := erase(ctx, d, info)
			if err != nil {
				return fault.Wrap("erase "+info.Name, err)
			}
			methods[i], ids[i] = method, info.ID
			sampled.Add(n)
			e.Log.Info("disk erased", "disk", info.ID, "method", method, "sampled", n)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	facts := plan.facts
	facts["method"], facts["disks"], facts["sampled"] = weakest(methods), strings.Join(ids, ","), strconv.FormatInt(sampled.Load(), 10)
	return facts, nil
}

// weakest is the method that the facts name when disks differ: what was overwritten was not discarded.
func weakest(methods []string) string {
	method := methods[0]
	for _, m := range methods {
		if m == "overwrite" {
			method = m
		}
	}
	return method
}

// discardVerified plants marks, discards, and looks whether they are gone: a disk that answers success and changes
// nothing is found out even where it held zeros.
func discardVerified(ctx context.Context, d disk.Disk, info disk.Info) (sampled int64, err error) {
	spots := samples(info)
	mark := disk.Buffer(sampleSize)
	for i, s := range spots {
		for j := 0; j < sampleSize; j += 8 {
			binary.LittleEndian.PutUint64(mark[j:], 0x7265697272614600+uint64(i)) // "Farrier" and the number
		}
		if _, err := d.WriteAt(mark[:s.len], s.off); err != nil {
			return 0, err
		}
	}
	if err := d.Flush(); err != nil {
		return 0, err
	}
	const step = 1 << 30 // discards of one call, so that a cancellation is heard
	for off := int64(0); off < info.Size; off += step {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := d.Discard(off, min(step, info.Size-off)); err != nil {
			return 0, err
		}
	}
	if err := d.Flush(); err != nil {
		return 0, err
	}
	return sample(ctx, d, info)
}

// samples are spread evenly, at an offset in each stretch that depends on the disk's id.
func samples(info disk.Info) []span {
	n := min(int64(sampleCount), max(info.Size/(64<<10), 1))
	stretch := info.Size / n
	var out []span
	for i := range n {
		seed := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(info.ID), uint64(i)))
		room := max(stretch-sampleSize, 1)
		off := i*stretch + int64(binary.LittleEndian.Uint64(seed[:8])%uint64(room))
		off = off / sampleSize * sampleSize
		if off+sampleSize <= info.Size {
			out = append(out, span{off, sampleSize})
		}
	}
	return out
}

// sample reads all samples, the first and the last MiB, and wants zeros.
func sample(ctx context.Context, d disk.Disk, info disk.Info) (int64, error) {
	end := min(int64(mib), info.Size)
	spots := append(samples(info), span{0, end}, span{info.Size - end, end})
	for _, s := range spots {
		if err := mustBeZero(ctx, d, s); err != nil {
			return 0, err
		}
	}
	return int64(len(spots)), nil
}

func mustBeZero(ctx context.Context, d disk.Disk, s span) error {
	buf := disk.Buffer(int(min(mib, s.len)))
	for off := s.off; off < s.off+s.len; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf)), s.off+s.len-off)
		if _, err := d.ReadAt(buf[:n], off); err != nil {
			return err
		}
		if !disk.AllZero(buf[:n]) {
			return fault.New(fault.Corrupt, "read back", "the disk does not read as zero at %d after it was erased", off).
				WithHelp("the disk keeps what it was told to drop: erase with method overwrite, or replace it")
		}
		off += n
	}
	return nil
}
