package steps

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

func driveOrder(t *testing.T, files map[string]string) work.Order {
	t.Helper()
	b, err := json.Marshal(files)
	if err != nil {
		t.Fatal(err)
	}
	o := order("write_config_drive", map[string]string{"disk_id": "serial-S0"})
	o.Secret = b
	return o
}

// readDrive reads the drive's files by an implementation that is not ours.
func readDrive(t *testing.T, r *rig, part int) map[string]string {
	t.Helper()
	d, err := diskfs.Open(r.spec[0].Path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	p := table.GetPartitions()[part-1]
	path := filepath.Join(t.TempDir(), "drive.iso") // on its own, because go-diskfs reads ISO images from the start of a device only
	if err := os.WriteFile(path, r.content(0)[p.GetStart():p.GetStart()+p.GetSize()], 0o600); err != nil {
		t.Fatal(err)
	}
	drive, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer drive.Close()
	fs, err := drive.GetFilesystem(0)
	if err != nil {
		t.Fatal(err)
	}
	if label := strings.TrimSpace(fs.Label()); label != configLabel {
		t.Errorf("volume id %q", label)
	}
	out := map[string]string{}
	entries, err := fs.ReadDir("openstack/latest")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := fs.ReadFile("openstack/latest/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestConfigDrive(t *testing.T) {
	image := gptImage(t, imageSize)
	r := newRig(t, 8<<20)
	r.images = serve(t, FormatRaw, image)
	run := r.runner(r.host())
	mustRun(t, run, r.imageOrder())
	first := map[string]string{"meta_data": `{"uuid":"n1","hostname":"web-1"}`, "user_data": "#cloud-config\n", "network_data": `{"links":[]}`}
	out := mustRun(t, run, driveOrder(t, first))
	part, err := strconv.Atoi(out.Facts["partition"])
	if err != nil {
		t.Fatal(err)
	}
	got := readDrive(t, r, part)
	if len(got) != 3 || got["meta_data.json"] != first["meta_data"] || got["user_data"] != first["user_data"] || got["network_data.json"] != first["network_data"] {
		t.Errorf("read back: %v", got)
	}
	again := mustRun(t, run, driveOrder(t, map[string]string{"meta_data": `{"uuid":"n2"}`, "vendor_data": `{"v":1}`}))
	if again.Facts["partition"] != out.Facts["partition"] || again.Facts["start"] != out.Facts["start"] {
		t.Errorf("not the same partition: %v, %v", out.Facts, again.Facts)
	}
	if got := readDrive(t, r, part); len(got) != 2 || got["meta_data.json"] != `{"uuid":"n2"}` {
		t.Errorf("after the second: %v", got)
	}
	big := map[string]string{"user_data": strings.Repeat("x", 9*mib/2)}
	out = mustRun(t, run, driveOrder(t, big))
	if part, err = strconv.Atoi(out.Facts["partition"]); err != nil {
		t.Fatal(err)
	}
	if got := readDrive(t, r, part); got["user_data"] != big["user_data"] || got["meta_data.json"] != `{"uuid":"n1"}` {
		t.Error("a larger drive in place of the first was not read back")
	}
	if got := r.content(0); string(got[256*512:256*512+64]) != string(image[256*512:256*512+64]) {
		t.Error("the image's partition was changed")
	}
	d, err := diskfs.Open(r.spec[0].Path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(d.Backend, 8<<20); err != nil {
		t.Errorf("the table after the change: %v", err)
	}
}

func TestConfigDriveFailsAtEachPoint(t *testing.T) {
	r := newRig(t, 4<<20)
	r.images = serve(t, FormatRaw, gptImage(t, imageSize))
	mustRun(t, r.runner(r.host()), r.imageOrder())
	deployed := r.content(0)
	for point := 0; ; point++ {
		if err := os.WriteFile(r.spec[0].Path, deployed, 0o600); err != nil {
			t.Fatal(err)
		}
		h := &faultHost{Host: r.host(), left: point}
		o := driveOrder(t, map[string]string{"user_data": "u"})
		out := r.runner(h).Run(context.Background(), o, nil)
		if h.hit == out.OK {
			t.Fatalf("point %d: %+v", point, out)
		}
		out = mustRun(t, r.runner(r.host()), o)
		part, err := strconv.Atoi(out.Facts["partition"])
		if err != nil {
			t.Fatal(err)
		}
		if got := readDrive(t, r, part); got["user_data"] != "u" {
			t.Errorf("point %d: %v", point, got)
		}
		if !h.hit {
			return
		}
	}
}

func TestConfigDriveRefused(t *testing.T) {
	r := newRig(t, 6<<20)
	r.images = serve(t, FormatRaw, gptImage(t, 6<<20))
	run := r.runner(r.host())
	for name, c := range map[string]struct {
		prepare func()
		files   map[string]string
		kind    fault.Kind
	}{
		"no table":  {func() {}, nil, fault.Unsupported},
		"not JSON":  {func() {}, map[string]string{"meta_data": "{"}, fault.Invalid},
		"too large": {func() {}, map[string]string{"user_data": strings.Repeat("x", maxConfigSize)}, fault.TooLarge},
	} {
		c.prepare()
		if out := run.Run(context.Background(), driveOrder(t, c.files), nil); out.Kind != c.kind.String() {
			t.Errorf("%s: %+v", name, out)
		}
	}
	mustRun(t, run, r.imageOrder())
	if out := run.Run(context.Background(), driveOrder(t, nil), nil); out.Kind != fault.TooLarge.String() {
		t.Errorf("no room: %+v", out)
	}
}
