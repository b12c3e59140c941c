package steps

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/fat"
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
		"no table":  {func() {}, map[string]string{"user_data": "u"}, fault.Unsupported},
		"not JSON":  {func() {}, map[string]string{"meta_data": "{"}, fault.Invalid},
		"too large": {func() {}, map[string]string{"user_data": strings.Repeat("x", maxConfigSize)}, fault.TooLarge},
	} {
		c.prepare()
		if out := run.Run(context.Background(), driveOrder(t, c.files), nil); out.Kind != c.kind.String() {
			t.Errorf("%s: %+v", name, out)
		}
	}
	mustRun(t, run, r.imageOrder())
	if out := run.Run(context.Background(), driveOrder(t, map[string]string{"network_data": "{}"}), nil); out.Kind != fault.TooLarge.String() {
		t.Errorf("no room: %+v", out)
	}
	o := driveOrder(t, nil)
	o.Args["config_drive"] = driveRequired
	if out := run.Run(context.Background(), o, nil); out.Kind != fault.TooLarge.String() {
		t.Errorf("no room for meta data that the user gave: %+v", out)
	}
}

// On a disk whose sectors are larger than a block of ISO 9660, the drive is a FAT with these sectors: Linux mounts nothing else.
func TestConfigDriveOnLargeSectors(t *testing.T) {
	for name, image := range map[string][]byte{"GPT": gptImageFor(t, imageSize, 4096), "MBR": mbrImage(t, imageSize, 4096, 1)} {
		r := newRig(t, 8<<20).withSectors(4096)
		r.images = serve(t, FormatRaw, image)
		run := r.runner(r.host())
		o := r.imageOrder()
		o.Args["config_drive"] = driveRequired
		mustRun(t, run, o)
		out := mustRun(t, run, driveOrder(t, map[string]string{"user_data": "u"}))
		if again := mustRun(t, run, driveOrder(t, map[string]string{"user_data": "u"})); again.Facts["start"] != out.Facts["start"] || again.Facts["partition"] != out.Facts["partition"] {
			t.Errorf("%s: not the same partition: %v, %v", name, out.Facts, again.Facts)
		}
		want, err := fat.Build(configLabel, 4096, []fat.File{{Path: "openstack/latest/meta_data.json", Data: []byte(`{"uuid":"n1"}`)}, {Path: "openstack/latest/user_data", Data: []byte("u")}})
		if err != nil {
			t.Fatal(err)
		}
		start := int(number(t, out, "start"))
		if out.Facts["config_drive"] != "vfat" || !bytes.Equal(r.content(0)[start:start+len(want)], want) {
			t.Errorf("%s: facts %v, or other bytes", name, out.Facts)
		}
		d, err := diskfs.Open(r.spec[0].Path, diskfs.WithOpenMode(diskfs.ReadOnly), diskfs.WithSectorSize(diskfs.SectorSize4k))
		if err != nil {
			t.Fatal(err)
		}
		table, err := d.GetPartitionTable()
		if err != nil {
			t.Fatal(err)
		}
		at := table.GetPartitions()[number(t, out, "partition")-1].GetStart()
		if name == "MBR" {
			at *= 4096 / 512 // go-diskfs counts an MBR's sectors as 512 bytes
		}
		if at != int64(start) {
			t.Errorf("%s: the table says that the partition begins at %d, not %d", name, at, start)
		}
		d.Close()
	}
}

// In an MBR the drive gets a primary partition at the end of the disk; a later one takes its place, wherever the first was cut.
func TestConfigDriveInAnMBR(t *testing.T) {
	image := mbrImage(t, imageSize, 512, 3)
	r := newRig(t, 8<<20)
	r.images = serve(t, FormatRaw, image)
	mustRun(t, r.runner(r.host()), r.imageOrder())
	deployed := r.content(0)
	for point := 0; ; point++ {
		if err := os.WriteFile(r.spec[0].Path, deployed, 0o600); err != nil {
			t.Fatal(err)
		}
		h := &faultHost{Host: r.host(), left: point}
		out := r.runner(h).Run(context.Background(), driveOrder(t, map[string]string{"user_data": "first"}), nil)
		if h.hit == out.OK {
			t.Fatalf("point %d: %+v", point, out)
		}
		out = mustRun(t, r.runner(r.host()), driveOrder(t, map[string]string{"user_data": "second"}))
		if out.Facts["partition"] != "4" || out.Facts["config_drive"] != "iso9660" {
			t.Errorf("point %d: facts %v", point, out.Facts)
		}
		if got := readDrive(t, r, 4); got["user_data"] != "second" {
			t.Errorf("point %d: %v", point, got)
		}
		if got := r.content(0); !bytes.Equal(got[512:len(image)], image[512:]) || !bytes.Equal(got[:446+3*16], image[:446+3*16]) {
			t.Errorf("point %d: the image was changed", point)
		}
		if !h.hit {
			return
		}
	}
}
