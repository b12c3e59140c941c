package iso

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"

	"github.com/farrier-project/farrier/pkg/fault"
)

func TestReadBackByAnother(t *testing.T) {
	files := []File{{"openstack/latest/meta_data.json", []byte(`{"uuid":"u"}`)}, {"openstack/latest/user_data", bytes.Repeat([]byte("x"), 5000)},
		{"openstack/latest/empty", nil}, {"top", []byte("t")}}
	for i := range 60 { // more records than fit one block
		files = append(files, File{fmt.Sprintf("many/file-number-%d.txt", i), []byte(fmt.Sprint(i))})
	}
	img, err := Build("config-2", files)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Build("config-2", files); err != nil || !bytes.Equal(img, again) {
		t.Errorf("a second build differs (%v)", err)
	}
	path := filepath.Join(t.TempDir(), "x.iso")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fs, err := d.GetFilesystem(0)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(fs.Label()); got != "config-2" {
		t.Errorf("label %q", got)
	}
	for _, f := range files {
		if len(f.Data) == 0 {
			continue
		}
		if got, err := fs.ReadFile(f.Path); err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s: %d bytes, %v", f.Path, len(got), err)
		}
	}
	if entries, err := fs.ReadDir("many"); err != nil || len(entries) != 60 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		volume string
		files  []File
		kind   fault.Kind
	}{
		"volume":    {strings.Repeat("x", 33), nil, fault.Invalid},
		"upwards":   {"v", []File{{"../x", nil}}, fault.Invalid},
		"absolute":  {"v", []File{{"/x", nil}}, fault.Invalid},
		"upper":     {"v", []File{{"X", nil}}, fault.Invalid},
		"long":      {"v", []File{{strings.Repeat("x", 29), nil}}, fault.Invalid},
		"twice":     {"v", []File{{"a/x", nil}, {"a/x", nil}}, fault.Exists},
		"too many":  {"v", make([]File, MaxFiles+1), fault.TooLarge},
		"too large": {"v", []File{{"x", make([]byte, MaxContent+1)}}, fault.TooLarge},
	} {
		if _, err := Build(c.volume, c.files); !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
