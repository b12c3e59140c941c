package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"

	"github.com/farrier-project/farrier/pkg/fault"
)

func sample() []File {
	files := []File{{"openstack/latest/meta_data.json", []byte(`{"uuid":"u"}`)}, {"openstack/latest/user_data", bytes.Repeat([]byte("x"), 5000)},
		{"openstack/latest/empty", nil}, {"top", []byte("t")}}
	for i := range 60 { // more entries than fit a cluster
		files = append(files, File{fmt.Sprintf("many/file-number-%d.txt", i), []byte(fmt.Sprint(i))})
	}
	return files
}

func open(t *testing.T, img []byte) (label string, read func(path string) ([]byte, error)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.fat")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	fs, err := d.GetFilesystem(0)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(fs.Label()), fs.ReadFile
}

func TestReadBackByAnother(t *testing.T) {
	for name, files := range map[string][]File{"FAT12": sample(), "FAT16": append(sample(), File{"large", bytes.Repeat([]byte("0123456789abcdef"), 256<<10)})} {
		img, err := Build("config-2", 512, files)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(img[54:62])); got != name {
			t.Errorf("%s says that it is %s", name, got)
		}
		if again, err := Build("config-2", 512, files); err != nil || !bytes.Equal(img, again) {
			t.Errorf("%s: a second build differs (%v)", name, err)
		}
		label, read := open(t, img)
		if label != "config-2" {
			t.Errorf("%s: label %q", name, label)
		}
		for _, f := range files {
			if len(f.Data) == 0 {
				continue
			}
			if got, err := read(f.Path); err != nil || !bytes.Equal(got, f.Data) {
				t.Errorf("%s, %s: %d bytes, %v", name, f.Path, len(got), err)
			}
		}
	}
}

// The same file system for sectors of 4096 bytes says so in its first sector, which is what a kernel compares with the
// disk's; go-diskfs reads 512 only, so the rest is looked at here.
func TestLargeSectors(t *testing.T) {
	files := sample()
	img, err := Build("config-2", 4096, files)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	table, total := int(le.Uint16(img[22:])), int(le.Uint16(img[19:]))
	if le.Uint16(img[11:]) != 4096 || total*4096 != len(img) || string(img[43:51]) != "config-2" {
		t.Fatalf("boot sector % x, %d bytes", img[:62], len(img))
	}
	rootAt := (1 + 2*table) * 4096
	dataAt := rootAt + 512*32
	next := func(c int) int {
		v := int(le.Uint16(img[4096+c*3/2:]))
		if c%2 == 1 {
			return v >> 4
		}
		return v & 0xfff
	}
	chain := func(c int) (b []byte) {
		for ; c < 0xff8; c = next(c) {
			b = append(b, img[dataAt+(c-2)*4096:][:4096]...)
		}
		return b
	}
	lookup := func(dir []byte, name string) (cluster, size int) {
		long := ""
		for ; dir[0] != 0; dir = dir[32:] {
			if dir[11] != attrLong {
				if long == name {
					return int(le.Uint16(dir[26:])), int(le.Uint32(dir[28:]))
				}
				long = ""
				continue
			}
			part := ""
			for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
				if dir[at] != 0 && dir[at] != 0xff {
					part += string(dir[at])
				}
			}
			long = part + long
		}
		t.Fatalf("there is no %s", name)
		return 0, 0
	}
	for _, f := range files {
		dir := img[rootAt:dataAt]
		names := strings.Split(f.Path, "/")
		for i, name := range names {
			c, size := lookup(dir, name)
			if i < len(names)-1 {
				dir = append(chain(c), make([]byte, 32)...)
				continue
			}
			if size != len(f.Data) || size > 0 && !bytes.Equal(chain(c)[:size], f.Data) {
				t.Errorf("%s: %d bytes", f.Path, size)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		label  string
		sector int
		files  []File
		kind   fault.Kind
	}{
		"label":     {strings.Repeat("x", 12), 512, nil, fault.Invalid},
		"sector":    {"v", 1000, nil, fault.Invalid},
		"upwards":   {"v", 512, []File{{"../x", nil}}, fault.Invalid},
		"absolute":  {"v", 512, []File{{"/x", nil}}, fault.Invalid},
		"upper":     {"v", 512, []File{{"X", nil}}, fault.Invalid},
		"twice":     {"v", 512, []File{{"a/x", nil}, {"a/x", nil}}, fault.Exists},
		"below":     {"v", 512, []File{{"a", nil}, {"a/x", nil}}, fault.Exists},
		"too many":  {"v", 512, make([]File, MaxFiles+1), fault.TooLarge},
		"too large": {"v", 512, []File{{"x", make([]byte, MaxContent+1)}}, fault.TooLarge},
		"clusters":  {"v", 512, []File{{"x", make([]byte, 33<<20)}}, fault.TooLarge},
	} {
		if _, err := Build(c.label, c.sector, c.files); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
