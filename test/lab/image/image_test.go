package image_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/test/lab/image"
)

// wantSHA256 is the digest of version 1 of the image. A change here is a change of every byte-for-byte comparison.
const wantSHA256 = "633967e507e698f4a94e4130e8076711944cea594b6a951d6ad89b98fe23208b"

func TestImage(t *testing.T) {
	dir := t.TempDir()
	img, err := image.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	if img.SHA256 != wantSHA256 {
		t.Errorf("the image's SHA-256 is %s, want %s: the same inputs must make the same bytes", img.SHA256, wantSHA256)
	}
	if again, err := image.Build(dir); err != nil || again != img {
		t.Errorf("the second Build = %+v, %v; want %+v", again, err, img)
	}
	if err := image.CheckPayload(img.Path); err != nil {
		t.Errorf("CheckPayload: %v", err)
	}
	if n, err := image.CompareDisk(img.Path, img.Path); err != nil || n < image.PayloadBytes {
		t.Errorf("CompareDisk of the image with itself = %d, %v", n, err)
	}
	for _, c := range []struct {
		name   string
		offset int64
		want   string
	}{
		{"payload", 200 << 20, "byte 209715200"},
		{"esp", 3 << 20, "byte 3145728"},
		{"gpt entry", 2*512 + 60, "checksum"},
		{"boot code", 100, "master boot record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := clone(t, img.Path)
			f, err := os.OpenFile(bad, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			var b [1]byte
			if _, err := f.ReadAt(b[:], c.offset); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0xff
			if _, err := f.WriteAt(b[:], c.offset); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if _, err := image.CompareDisk(img.Path, bad); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("CompareDisk = %v, want %q", err, c.want)
			}
		})
	}
}

func clone(t *testing.T, path string) string {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
