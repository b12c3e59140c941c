package steps

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

const (
	imageSize = 20 * testChunk
	diskSize  = 40 * testChunk
)

// checkImage compares the disk with the image, but for what relocating the table changes: MBR and header, sector 0 and 1.
func checkImage(t *testing.T, r *rig, image []byte) {
	t.Helper()
	got := r.content(0)
	from := int(2 * r.spec[0].Sector)
	if !bytes.Equal(got[from:len(image)], image[from:]) {
		for i := from; i < len(image); i++ {
			if got[i] != image[i] {
				t.Fatalf("disk and image differ first at %d (chunk %d)", i, i/testChunk)
			}
		}
	}
	d, err := diskfs.Open(r.spec[0].Path, diskfs.WithOpenMode(diskfs.ReadOnly), diskfs.WithSectorSize(diskfs.SectorSize(r.spec[0].Sector)))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	g, ok := table.(*gpt.Table)
	if !ok || len(g.Partitions) == 0 || g.Partitions[0].Name != "root" {
		t.Fatalf("table %+v", table)
	}
	if err := g.Verify(d.Backend, uint64(r.spec[0].SizeBytes)); err != nil {
		t.Errorf("the backup is not at the end of the disk: %v", err)
	}
}

func TestWriteImage(t *testing.T) {
	for _, sector := range sectors {
		t.Run(fmt.Sprint(sector), func(t *testing.T) { testWriteImage(t, sector) })
	}
}

func testWriteImage(t *testing.T, sector int64) {
	image := gptImageFor(t, imageSize, sector)
	for _, format := range []string{FormatRaw, FormatRawGzip, FormatRawZstd} {
		for _, discard := range []machine.Discard{machine.DiscardWorks, machine.DiscardRefuse, machine.DiscardLies} {
			t.Run(format+" "+string(discard), func(t *testing.T) {
				r := newRig(t, diskSize).withSectors(sector)
				r.spec[0].Discard = discard
				r.images = serve(t, format, image)
				run := r.runner(r.host())
				out := mustRun(t, run, r.imageOrder())
				checkImage(t, r, image)
				if out.Facts["digest"] != r.images.man.SHA256 || out.Facts["bytes"] != fmt.Sprint(imageSize) {
					t.Errorf("facts %v", out.Facts)
				}
				wantSkipped := discard == machine.DiscardWorks
				if out.Facts["rewritten"] != "0" || number(t, out, "written")+number(t, out, "skipped") != imageSize {
					t.Errorf("facts %v: each chunk is written once, or skipped", out.Facts)
				}
				if (out.Facts["skipped"] != "0") != wantSkipped {
					t.Errorf("skipped %s with discard %s", out.Facts["skipped"], discard)
				}
				if again := mustRun(t, run, r.imageOrder()); again.Facts["written"] != out.Facts["written"] {
					t.Errorf("again: %v", again.Facts)
				}
				checkImage(t, r, image)
			})
		}
	}
}

func TestWriteImageThroughBadStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image := gptImage(t, imageSize)
		for _, format := range []string{FormatRaw, FormatRawZstd} {
			r := newRig(t, diskSize)
			r.images = serve(t, format, image)
			r.images.fail(down, cut(100_000), cut(0), short(70_000), nil, flip(70_001), flip(3), cut(65_536), down, down)
			mustRun(t, r.runner(r.host()), r.imageOrder())
			checkImage(t, r, image)
			if r.images.distrusted == 0 {
				t.Errorf("%s: an agent that sent wrong bytes was not left", format)
			}
			for i := range r.images.man.Chunks {
				if n := r.writes(0)[int64(i)*testChunk]; i > 0 && n > 1 {
					t.Errorf("%s: chunk %d was written %d times", format, i, n)
				}
			}
		}
	})
}

// A cut stream is continued where it broke, not from the start.
func TestCutContinuesByRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, diskSize)
		r.images = serve(t, FormatRawGzip, noise(imageSize, 1))
		r.images.fail(nil, cut(5*testChunk)) // the first is for the look at chunk 0
		mustRun(t, r.runner(r.host()), r.imageOrder())
		if got := r.images.ranges; len(got) != 3 || got[2][0] != 5*testChunk {
			t.Errorf("ranges asked for: %v", got)
		}
	})
}

func TestWrongContentIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, diskSize)
		image := gptImage(t, imageSize)
		r.images = serve(t, FormatRaw, image)
		r.images.man.Chunks[5] = bytes.Repeat([]byte{7}, 32)
		out := r.runner(r.host()).Run(context.Background(), r.imageOrder(), nil)
		if out.OK || out.Kind != fault.Corrupt.String() || out.Retryable {
			t.Errorf("outcome %+v", out)
		}
		if !disk.AllZero(r.content(0)[:testChunk]) {
			t.Error("a part of an image has its boot record")
		}
	})
}

func TestRefusedBeforeTheFirstWrite(t *testing.T) {
	image := gptImage(t, imageSize)
	for name, c := range map[string]struct {
		change func(*rig, map[string]string)
		kind   fault.Kind
	}{
		"larger than the disk": {func(r *rig, _ map[string]string) { r.images = serve(t, FormatRaw, noise(diskSize+512, 2)) }, fault.TooLarge},
		"no such disk":         {func(_ *rig, a map[string]string) { a["disk_id"] = "serial-S7" }, fault.NoMatch},
		"other format":         {func(_ *rig, a map[string]string) { a["format"] = FormatRawGzip }, fault.Corrupt},
		"unknown image":        {func(_ *rig, a map[string]string) { a["sha256"] = "00" }, fault.NotFound},
		"unknown format": {func(r *rig, a map[string]string) {
			r.images.man.Format, a["format"] = "qcow2", "qcow2"
		}, fault.Unsupported},
		"GPT for other sectors": {func(r *rig, _ map[string]string) { r.withSectors(4096) }, fault.Unsupported},
		"GPT for other sectors, compressed": {func(r *rig, _ map[string]string) {
			r.images = serve(t, FormatRawZstd, gptImageFor(t, imageSize, 4096))
			r.images.man.Format = FormatRawZstd
		}, fault.Unsupported},
		"MBR for other sectors": {func(r *rig, _ map[string]string) {
			r.withSectors(4096)
			r.images = serve(t, FormatRaw, mbrImage(t, imageSize, 512, 1))
		}, fault.Unsupported},
		"GPT with no room for the user data": {func(r *rig, a map[string]string) {
			r.images = serve(t, FormatRaw, gptImage(t, diskSize))
			a["config_drive"] = "required"
		}, fault.TooLarge},
		"MBR with no room for the user data": {func(r *rig, a map[string]string) {
			r.images = serve(t, FormatRaw, mbrImage(t, diskSize, 512, 1))
			a["config_drive"] = "required"
		}, fault.TooLarge},
		"MBR with no free slot for the user data": {func(r *rig, a map[string]string) {
			r.images = serve(t, FormatRaw, mbrImage(t, imageSize, 512, 4))
			a["config_drive"] = "required"
		}, fault.TooLarge},
		"user data for an image without a table": {func(r *rig, a map[string]string) {
			r.images = serve(t, FormatRaw, noise(imageSize, 2))
			a["config_drive"] = "required"
		}, fault.Unsupported},
		"user data for an image of zeros": {func(r *rig, a map[string]string) {
			r.images = serve(t, FormatRaw, make([]byte, imageSize))
			a["config_drive"] = "required"
		}, fault.Unsupported},
		"manifest short of a chunk": {func(r *rig, _ map[string]string) { r.images.man.Chunks = r.images.man.Chunks[1:] }, fault.Corrupt},
	} {
		r := newRig(t, diskSize)
		r.images = serve(t, FormatRaw, image)
		o := r.imageOrder()
		sha := o.Args["sha256"]
		c.change(r, o.Args)
		if o.Args["format"] == FormatRaw {
			o.Args["format"] = r.images.man.Format
		}
		if o.Args["sha256"] == sha {
			o.Args["sha256"] = r.images.man.SHA256
		}
		out := r.runner(r.host()).Run(context.Background(), o, nil)
		if out.OK || out.Kind != c.kind.String() {
			t.Errorf("%s: %+v", name, out)
		}
		if len(r.writes(0)) != 0 {
			t.Errorf("%s: the disk was written to", name)
		}
	}
}

// Whatever call to the disk fails, a fresh boot ends the work, and writes no chunk that was in place.
func TestWriteImageFailsAtEachPoint(t *testing.T) {
	image := gptImage(t, 10*testChunk)
	for point := 0; ; point++ {
		r := newRig(t, 20*testChunk)
		r.images = serve(t, FormatRaw, image)
		h := &faultHost{Host: r.host(), left: point}
		out := r.runner(h).Run(context.Background(), r.imageOrder(), nil)
		if !h.hit {
			if !out.OK {
				t.Fatalf("without a fault: %+v", out)
			}
			if point < 20 {
				t.Fatalf("only %d points", point)
			}
			return
		}
		if out.OK || !out.Retryable {
			t.Fatalf("point %d: %+v", point, out)
		}
		o := r.imageOrder()
		o.Ref.Attempt, o.Resumed = 2, true
		mustRun(t, r.runner(r.host()), o)
		checkImage(t, r, image)
		writes := r.writes(0)
		for i := 1; i < len(r.images.man.Chunks); i++ {
			if off := int64(i) * testChunk; writes[off] > 1 && !r.images.man.zero(i) {
				t.Errorf("point %d: chunk %d was written %d times", point, i, writes[off])
			}
		}
	}
}

// Within one boot, what is verified is remembered: the next attempt neither writes nor looks.
func TestAttemptsOfOneBootShareTheirChunks(t *testing.T) {
	image := gptImage(t, imageSize)
	r := newRig(t, diskSize)
	r.images = serve(t, FormatRaw, image)
	h := &faultHost{Host: r.host(), left: 15}
	run := r.runner(h)
	if out := run.Run(context.Background(), r.imageOrder(), nil); out.OK {
		t.Fatal("the fault did not show")
	}
	h.mu.Lock()
	h.left = -1
	h.mu.Unlock()
	o := r.imageOrder()
	o.Ref.Attempt = 2
	mustRun(t, run, o)
	checkImage(t, r, image)
	for i := 1; i < len(r.images.man.Chunks); i++ {
		if n := r.writes(0)[int64(i)*testChunk]; n > 1 {
			t.Errorf("chunk %d was written %d times", i, n)
		}
	}
}

// A disk that does not keep what it is given is found out.
func TestDiskThatForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, diskSize)
		r.images = serve(t, FormatRaw, gptImage(t, imageSize))
		out := r.runner(&forgetful{faultHost{Host: r.host(), left: -1}}).Run(context.Background(), r.imageOrder(), nil)
		if out.OK || out.Kind != fault.Corrupt.String() {
			t.Errorf("outcome %+v", out)
		}
	})
}

func TestOddSizes(t *testing.T) {
	for _, size := range []int{1, 511, 512, testChunk, testChunk + 1, 5*testChunk - 700, diskSize} {
		r := newRig(t, diskSize)
		content := noise(size, 3)
		r.images = serve(t, FormatRawZstd, content)
		mustRun(t, r.runner(r.host()), r.imageOrder())
		if got := r.content(0); !bytes.Equal(got[:size], content) {
			t.Errorf("size %d: the disk differs", size)
		}
	}
	r := newRig(t, diskSize)
	r.images = serve(t, FormatRaw, make([]byte, 4*testChunk)) // nothing but zeros
	mustRun(t, r.runner(r.host()), r.imageOrder())
	if !disk.AllZero(r.content(0)[:4*testChunk]) {
		t.Error("zeros were not written")
	}
}

func TestCancelled(t *testing.T) {
	r := newRig(t, diskSize)
	r.images = serve(t, FormatRaw, gptImage(t, imageSize))
	ctx, cancel := context.WithCancel(context.Background())
	out := r.runner(r.host()).Run(ctx, r.imageOrder(), func(p progress.Progress) {
		if p.Text == "write" {
			cancel()
		}
	})
	if out.OK || out.Kind != fault.Aborted.String() {
		t.Errorf("outcome %+v", out)
	}
}

func number(t *testing.T, out work.Outcome, fact string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(out.Facts[fact], 10, 64)
	if err != nil {
		t.Fatalf("fact %s: %v", fact, err)
	}
	return n
}

// An image without a table is an image too: it lies on the disk as it is, and a config drive that nobody needs is left out.
func TestImagesWithoutAGPT(t *testing.T) {
	for name, image := range map[string][]byte{"file system": noise(imageSize, 2), "MBR": mbrImage(t, imageSize, 512, 2), "full MBR": mbrImage(t, imageSize, 512, 4)} {
		r := newRig(t, 4<<20)
		r.images = serve(t, FormatRaw, image)
		run := r.runner(r.host())
		mustRun(t, run, r.imageOrder())
		if !bytes.Equal(r.content(0)[:imageSize], image) {
			t.Errorf("%s: the disk differs", name)
		}
		out := mustRun(t, run, driveOrder(t, map[string]string{"meta_data": `{"uuid":"n1"}`}))
		if want := map[string]string{"MBR": "iso9660"}[name]; out.Facts["config_drive"] != cmp.Or(want, "none") {
			t.Errorf("%s: facts %v", name, out.Facts)
		}
	}
}

// Bytes that go to the disk a second time are counted as such, however many zeros of the image were not written.
func TestWhatIsWrittenAgainIsCounted(t *testing.T) {
	r := newRig(t, diskSize)
	r.images = serve(t, FormatRaw, gptImage(t, imageSize))
	h := &onceForgetful{Host: r.host()}
	out := mustRun(t, r.runner(h), r.imageOrder())
	if out.Facts["rewritten"] != fmt.Sprint(testChunk) || number(t, out, "written")+number(t, out, "skipped") != imageSize {
		t.Errorf("facts %v; one chunk was lost once", out.Facts)
	}
}

// onceForgetful drops the first write of a whole chunk behind the first.
type onceForgetful struct {
	disk.Host
	done atomic.Bool
}

func (h *onceForgetful) Open(i disk.Info) (disk.Disk, error) {
	d, err := h.Host.Open(i)
	return onceForgetfulDisk{d, h}, err
}

type onceForgetfulDisk struct {
	disk.Disk
	h *onceForgetful
}

func (d onceForgetfulDisk) WriteAt(p []byte, off int64) (int, error) {
	if off > 0 && len(p) == testChunk && d.h.done.CompareAndSwap(false, true) {
		return len(p), nil
	}
	return d.Disk.WriteAt(p, off)
}
