package docs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/klauspost/compress/zstd"
)

// image is a small disk image: a GPT with one partition of noise, packed with zstd as the pages' image is.
type image struct {
	path    string
	sha256  string
	payload []byte // of the partition
}

const (
	imageBytes   = 12 << 20
	payloadStart = 1 << 20
	payloadBytes = 8 << 20
)

func buildImage(t *testing.T) image {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "image.raw")
	d, err := diskfs.Create(raw, imageBytes, diskfs.SectorSize512)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Partition(&gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Start: payloadStart / 512, End: (payloadStart+payloadBytes)/512 - 1, Type: gpt.LinuxFilesystem, Name: "root"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	img := image{path: filepath.Join(t.TempDir(), "debian-12.raw.zst"), payload: b[payloadStart : payloadStart+payloadBytes]}
	_, _ = rand.NewChaCha8([32]byte{}).Read(img.payload) // never fails
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(packed.Bytes())
	img.sha256 = hex.EncodeToString(sum[:])
	if err := os.WriteFile(img.path, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return img
}

// onDisk tells whether the image is on the machine's disk.
func (r *rack) onDisk(t *testing.T) bool {
	t.Helper()
	f, err := os.Open(r.machine.DiskPath())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, payloadBytes)
	if _, err := f.ReadAt(got, payloadStart); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(got, r.image.payload)
}
