package steps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

const testChunk = 64 << 10

// rig is a machine with files for disks, and agents that serve one image.
type rig struct {
	t      *testing.T
	dir    string
	spec   []machine.Disk
	images *fakeImages
}

// newRig makes a machine whose disks hold noise.
func newRig(t *testing.T, sizes ...int64) *rig {
	r := &rig{t: t, dir: t.TempDir()}
	for i, size := range sizes {
		d := machine.Disk{Path: filepath.Join(r.dir, fmt.Sprintf("disk%d", i)), Name: fmt.Sprintf("sd%c", 'a'+i), Serial: fmt.Sprintf("S%d", i),
			SizeBytes: size, Sector: 512, Discard: machine.DiscardWorks, WriteLog: filepath.Join(r.dir, fmt.Sprintf("log%d", i))}
		if err := os.WriteFile(d.Path, noise(int(size), 99), 0o600); err != nil {
			t.Fatal(err)
		}
		r.spec = append(r.spec, d)
	}
	return r
}

// noise repeats with a period that no chunk has.
func noise(n int, seed uint64) []byte {
	b := make([]byte, min(n, 65521))
	c := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = c.Read(b)
	return bytes.Repeat(b, n/len(b)+1)[:n]
}

// withSectors changes the logical sectors of the rig's disks.
func (r *rig) withSectors(sector int64) *rig {
	for i := range r.spec {
		r.spec[i].Sector = sector
	}
	return r
}

func (r *rig) host() disk.Host {
	h, err := disk.NewSoftware(r.spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *rig) runner(h disk.Host) *Runner {
	return New(Config{Host: h, Images: r.images, Log: slog.New(slog.DiscardHandler), Workers: 2})
}

func (r *rig) content(i int) []byte {
	b, err := os.ReadFile(r.spec[i].Path)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// writes are the offsets of the write log.
func (r *rig) writes(i int) map[int64]int {
	b, err := os.ReadFile(r.spec[i].WriteLog)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	out := map[int64]int{}
	for line := range strings.Lines(string(b)) {
		var off, n int64
		if _, err := fmt.Sscanf(line, "write %d %d", &off, &n); err == nil {
			out[off]++
		}
	}
	return out
}

func order(step string, args map[string]string) work.Order {
	return work.Order{Ref: work.Ref{Node: "n1", Flow: 1, Step: 1, Attempt: 1, Token: 1}, Step: step, Args: args}
}

func (r *rig) imageOrder() work.Order {
	return order("write_image", map[string]string{"sha256": r.images.man.SHA256, "format": r.images.man.Format, "disk_id": "serial-S0"})
}

func mustRun(t *testing.T, r *Runner, o work.Order) work.Outcome {
	t.Helper()
	out := r.Run(context.Background(), o, nil)
	if !out.OK {
		t.Fatalf("%s: %s (%s)", o.Step, out.Error, out.Kind)
	}
	return out
}

// sectors are the logical sectors that disks have.
var sectors = []int64{512, 4096} // read-only

// partStart and partTail are where the partition of a test image begins, and what follows it to the image's end.
const partStart, partTail = 256 * 512, 300 * 512

// gptImage makes an image of the size with a table and one partition, by an implementation that is not ours, then
// noise in some chunks of the partition and zeros in others.
func gptImage(t *testing.T, size int64) []byte { return gptImageFor(t, size, 512) }

func gptImageFor(t *testing.T, size, sector int64) []byte {
	n := int(sector)
	return tableImage(t, size, &gpt.Table{LogicalSectorSize: n, PhysicalSectorSize: n, ProtectiveMBR: true, GUID: "11111111-2222-4333-8444-555555555555",
		Partitions: []*gpt.Partition{{Index: 1, Start: uint64(partStart / sector), End: uint64((size-partTail)/sector) - 1, Type: gpt.LinuxFilesystem, Name: "root", GUID: "21111111-2222-4333-8444-555555555555"}}})
}

// mbrImage is such an image with an MBR: a partition with data, and more of 16 KiB at its end to make the number.
func mbrImage(t *testing.T, size, sector int64, partitions int) []byte {
	n := int(sector)
	table := &mbr.Table{LogicalSectorSize: n, PhysicalSectorSize: n,
		Partitions: []*mbr.Partition{{Bootable: true, Type: mbr.Linux, Start: uint32(partStart / sector), Size: uint32((size - partTail - partStart) / sector)}}}
	for i := 1; i < partitions; i++ {
		table.Partitions = append(table.Partitions, &mbr.Partition{Type: mbr.Linux, Start: uint32((size - int64(i)<<14) / sector), Size: uint32(1 << 14 / sector)})
	}
	return tableImage(t, size, table)
}

func tableImage(t *testing.T, size int64, table partition.Table) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	d, err := diskfs.Create(path, size, diskfs.SectorSize512)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Partition(table); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(b) - partTail
	for off := testChunk * 2; off < end; off += 3 * testChunk { // two of three chunks hold something
		copy(b[off:min(off+2*testChunk, end)], noise(2*testChunk, uint64(off/testChunk)))
	}
	return b
}

// fakeImages are agents with one image. Faults are taken from the front of a list, one for each Open.
type fakeImages struct {
	man  Manifest
	file []byte

	mu         sync.Mutex
	faults     []func(b []byte) (io.ReadCloser, error)
	opens      int
	distrusted int
	ranges     [][2]int64
}

func (f *fakeImages) Manifest(_ context.Context, sha string) (Manifest, error) {
	if sha != f.man.SHA256 {
		return Manifest{}, fault.New(fault.NotFound, "get manifest", "no image %s", sha)
	}
	return f.man, nil
}

func (f *fakeImages) Open(ctx context.Context, path string, off, n int64) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f.opens++
	f.ranges = append(f.ranges, [2]int64{off, n})
	if path != "/images/"+f.man.SHA256 || off < 0 || off+n > int64(len(f.file)) {
		return nil, fault.New(fault.NotFound, "open", "%s at %d+%d", path, off, n)
	}
	b := f.file[off : off+n]
	if len(f.faults) > 0 {
		next := f.faults[0]
		f.faults = f.faults[1:]
		if next != nil {
			return next(b)
		}
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (f *fakeImages) Distrust(error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.distrusted++
}

func (f *fakeImages) fail(faults ...func(b []byte) (io.ReadCloser, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, faults...)
}

// down refuses the connection.
func down([]byte) (io.ReadCloser, error) {
	return nil, fault.New(fault.Unavailable, "open", "connection refused")
}

// cut ends with an error after n bytes.
func cut(n int) func([]byte) (io.ReadCloser, error) {
	return func(b []byte) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:min(n, len(b))]), failing{})), nil
	}
}

// short ends early without an error.
func short(n int) func([]byte) (io.ReadCloser, error) {
	return func(b []byte) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[:min(n, len(b))])), nil
	}
}

// flip changes one bit.
func flip(at int) func([]byte) (io.ReadCloser, error) {
	return func(b []byte) (io.ReadCloser, error) {
		c := bytes.Clone(b)
		c[min(at, len(c)-1)] ^= 4
		return io.NopCloser(bytes.NewReader(c)), nil
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func serve(t *testing.T, format string, content []byte) *fakeImages {
	t.Helper()
	var file bytes.Buffer
	switch format {
	case FormatRaw:
		file.Write(content)
	case FormatRawGzip:
		z := gzip.NewWriter(&file)
		_, _ = z.Write(content)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	case FormatRawZstd:
		z, err := zstd.NewWriter(&file, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = z.Write(content)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(file.Bytes())
	f := &fakeImages{file: file.Bytes(), man: Manifest{SHA256: hex.EncodeToString(sum[:]), Format: format, FileSize: int64(file.Len()),
		ContentSize: int64(len(content)), ChunkSize: testChunk}}
	for off := 0; off < len(content); off += testChunk {
		c := content[off:min(off+testChunk, len(content))]
		if disk.AllZero(c) {
			f.man.Chunks = append(f.man.Chunks, nil)
			continue
		}
		d := sha256.Sum256(c)
		f.man.Chunks = append(f.man.Chunks, d[:])
	}
	return f
}

// faultHost fails the n-th call that changes or reads a disk, and all after it until healed.
type faultHost struct {
	disk.Host
	mu   sync.Mutex
	left int // calls until the fault; negative: none
	hit  bool
}

func (h *faultHost) Open(i disk.Info) (disk.Disk, error) {
	d, err := h.Host.Open(i)
	if err != nil {
		return nil, err
	}
	return &faultDisk{d, h}, nil
}

func (h *faultHost) tick() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left == 0 {
		h.hit = true
		return fault.New(fault.Unavailable, "disk", "injected")
	}
	h.left--
	return nil
}

type faultDisk struct {
	disk.Disk
	h *faultHost
}

func (d *faultDisk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.h.tick(); err != nil {
		return 0, err
	}
	return d.Disk.ReadAt(p, off)
}

func (d *faultDisk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.h.tick(); err != nil {
		return 0, err
	}
	return d.Disk.WriteAt(p, off)
}

func (d *faultDisk) Flush() error {
	if err := d.h.tick(); err != nil {
		return err
	}
	return d.Disk.Flush()
}

func (d *faultDisk) Discard(off, n int64) error {
	if err := d.h.tick(); err != nil {
		return err
	}
	return d.Disk.Discard(off, n)
}

// forgetful drops every write of a whole chunk.
type forgetful struct{ faultHost }

func (h *forgetful) Open(i disk.Info) (disk.Disk, error) {
	d, err := h.Host.Open(i)
	return forgetfulDisk{d}, err
}

type forgetfulDisk struct{ disk.Disk }

func (d forgetfulDisk) WriteAt(p []byte, off int64) (int, error) {
	if len(p) == testChunk && off > 0 {
		return len(p), nil
	}
	return d.Disk.WriteAt(p, off)
}
