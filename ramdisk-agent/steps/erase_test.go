package steps

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/machine"
)

const eraseSize = 6 << 20

func TestEraseDevices(t *testing.T) {
	for _, c := range []struct {
		discard machine.Discard
		method  string
		want    string // method of the facts, or kind of the failure
	}{
		{machine.DiscardWorks, "auto", "discard"},
		{machine.DiscardWorks, "", "discard"},
		{machine.DiscardWorks, "discard", "discard"},
		{machine.DiscardWorks, "overwrite", "overwrite"},
		{machine.DiscardRefuse, "auto", "overwrite"},
		{machine.DiscardRefuse, "discard", "unsupported"},
		{machine.DiscardLies, "auto", "overwrite"},
		{machine.DiscardLies, "discard", "corrupt"},
		{machine.DiscardWorks, "shred", "invalid"},
	} {
		r := newRig(t, eraseSize, eraseSize/2)
		for i := range r.spec {
			r.spec[i].Discard = c.discard
		}
		run := r.runner(r.host())
		out := run.Run(context.Background(), order("erase_devices", map[string]string{"method": c.method}), nil)
		if !out.OK {
			if out.Kind != c.want {
				t.Errorf("%v: %+v", c, out)
			}
			continue
		}
		if out.Facts["method"] != c.want || out.Facts["disks"] != "serial-S0,serial-S1" || out.Facts["sampled"] == "0" {
			t.Errorf("%v: facts %v", c, out.Facts)
		}
		mustRun(t, run, order("erase_devices", map[string]string{"method": c.method}))
		for i := range r.spec {
			if !disk.AllZero(r.content(i)) {
				t.Errorf("%v: disk %d is not empty", c, i)
			}
		}
	}
}

// TestAnEraseWithoutADiskSucceeded: nobody may take that for a wipe.
func TestAnEraseWithoutADiskSucceeded(t *testing.T) {
	for _, name := range []string{"erase_devices", "erase_devices_metadata"} {
		r := newRig(t)
		out := r.runner(r.host()).Run(context.Background(), order(name, nil), nil)
		if out.OK || out.Kind != fault.NotFound.String() || out.Retryable || !strings.Contains(out.Error, "sees no disk") {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

// A disk that held zeros hides a lie from those who only read; the marks bring it out.
func TestLieIsFoundOnAnEmptyDisk(t *testing.T) {
	r := newRig(t, eraseSize)
	r.spec[0].Discard = machine.DiscardLies
	mustRun(t, r.runner(r.host()), order("erase_devices", map[string]string{"method": "overwrite"}))
	out := mustRun(t, r.runner(r.host()), order("erase_devices", nil))
	if out.Facts["method"] != "overwrite" {
		t.Errorf("facts %v", out.Facts)
	}
}

func TestEraseMetadata(t *testing.T) {
	image := gptImage(t, eraseSize)
	at := 256 * 512 // the partition
	copy(image[at:], bytes.Repeat([]byte("SUPER"), 1000))
	r := newRig(t, eraseSize)
	r.images = serve(t, FormatRaw, image)
	run := r.runner(r.host())
	mustRun(t, run, r.imageOrder())
	for range 2 {
		out := mustRun(t, run, order("erase_devices_metadata", nil))
		if out.Facts["method"] != "metadata" || out.Facts["disks"] != "serial-S0" {
			t.Errorf("facts %v", out.Facts)
		}
	}
	got := r.content(0)
	if !disk.AllZero(got[:mib]) || !disk.AllZero(got[eraseSize-mib:]) || !disk.AllZero(got[at:at+mib]) {
		t.Error("metadata is left")
	}
	if disk.AllZero(got) {
		t.Error("more than metadata was erased")
	}
}

// What tells a kernel of a RAID or of LVM stands at both ends of a partition, in an MBR as in a GPT.
func TestEraseMetadataInsideAnMBR(t *testing.T) {
	image := mbrImage(t, eraseSize, 512, 1)
	end := eraseSize - partTail
	copy(image[partStart:], bytes.Repeat([]byte("SUPER"), 1000))
	copy(image[end-4096:], bytes.Repeat([]byte("SUPER"), 800))
	r := newRig(t, eraseSize)
	r.images = serve(t, FormatRaw, image)
	run := r.runner(r.host())
	mustRun(t, run, r.imageOrder())
	mustRun(t, run, order("erase_devices_metadata", nil))
	if got := r.content(0); !disk.AllZero(got[partStart:partStart+mib]) || !disk.AllZero(got[end-mib:end]) {
		t.Error("metadata of the partition is left")
	}
}

// A partition that reaches past the end (the disk was cloned from a larger one, or shows fewer bytes than before) still has its head
// on the disk.
func TestPartitionPastTheEndKeptItsMetadata(t *testing.T) {
	image := mbrImage(t, eraseSize, 512, 1)
	binary.LittleEndian.PutUint32(image[446+12:], 1<<31) // sectors of the first partition
	copy(image[partStart:], bytes.Repeat([]byte("SUPER"), 100_000))
	r := newRig(t, eraseSize)
	if err := os.WriteFile(r.spec[0].Path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, r.runner(r.host()), order("erase_devices_metadata", nil))
	if got := r.content(0); !disk.AllZero(got[partStart : partStart+mib]) {
		t.Error("metadata of the partition is left")
	}
}

// Twelve hard disks take as long as one: they are all in work at once.
func TestHardDisksAreErasedAllAtOnce(t *testing.T) {
	const disks = 12 // three times as many as of flash
	r := newRig(t, slices.Repeat([]int64{64 << 10}, disks)...)
	for i := range r.spec {
		r.spec[i].Rotational, r.spec[i].Discard = true, machine.DiscardRefuse
	}
	h := &meetingHost{Host: r.host(), left: disks, all: make(chan struct{})}
	mustRun(t, r.runner(h), order("erase_devices", nil)) // hangs, if some wait for others
}

// meetingHost opens no disk before all were asked for.
type meetingHost struct {
	disk.Host
	mu   sync.Mutex
	left int
	all  chan struct{}
}

func (h *meetingHost) Open(i disk.Info) (disk.Disk, error) {
	h.mu.Lock()
	if h.left--; h.left == 0 {
		close(h.all)
	}
	h.mu.Unlock()
	<-h.all
	return h.Host.Open(i)
}

func TestEraseFailsAtEachPoint(t *testing.T) {
	for _, step := range []string{"erase_devices_metadata", "erase_devices"} {
		for _, point := range []int{0, 1, 2, 5, 40, 47, 48, 49, 50, 60, 100} {
			r := newRig(t, 3<<20)
			h := &faultHost{Host: r.host(), left: point}
			out := r.runner(h).Run(context.Background(), order(step, nil), nil)
			if h.hit == out.OK && step == "erase_devices_metadata" {
				t.Errorf("%s, point %d: %+v", step, point, out)
			}
			mustRun(t, r.runner(r.host()), order(step, nil))
			if got := r.content(0); !disk.AllZero(got[:mib]) || step == "erase_devices" && !disk.AllZero(got) {
				t.Errorf("%s, point %d: not erased", step, point)
			}
		}
	}
}

func TestSelectDisk(t *testing.T) {
	r := newRig(t, 2<<20, 4<<20, 4<<20)
	r.spec[1].Model, r.spec[2].Model = "Fast 1", "fast 1"
	r.spec[1].WWN, r.spec[1].Rotational = "0x5000ABC", true
	run := r.runner(r.host())
	for _, c := range []struct{ hints, want string }{
		{"", "serial-S0"},
		{"min_bytes=3000000", "serial-S2"},
		{"min_bytes=9000000", "no_match"},
		{"hint.serial=s1", "wwn-0x5000ABC"},
		{"hint.wwn=5000abc", "wwn-0x5000ABC"},
		{"hint.name=/dev/sdc", "serial-S2"},
		{"hint.name=sda", "serial-S0"},
		{"hint.model=FAST 1", "ambiguous"},
		{"hint.model=FAST 1,hint.rotational=false", "serial-S2"},
		{"hint.rotational=true", "wwn-0x5000ABC"},
		{"hint.model=slow", "no_match"},
		{"hint.size=0", "invalid"},
		{"hint.by_path=software-2", "serial-S2"},
		{"hint.min_size_gib=1", "no_match"},
		{"hint.id=serial-S0", "serial-S0"},
		{"hint.serial=,hint.vendor=", "serial-S0"},
		{"hint.size=big", "invalid"},
		{"hint.rotational=perhaps", "invalid"},
		{"hint.colour=red", "invalid"},
		{"min_bytes=-1", "invalid"},
	} {
		args := map[string]string{}
		for _, kv := range strings.Split(c.hints, ",") {
			if k, v, ok := strings.Cut(kv, "="); ok {
				args[k] = v
			}
		}
		out := run.Run(context.Background(), order("deploy.select_disk", args), nil)
		got := out.Facts["disk_id"]
		if !out.OK {
			got = out.Kind
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s (%s)", c.hints, got, c.want, out.Error)
		}
		if (got == "ambiguous" || got == "no_match") && !strings.Contains(out.Error, "serial S2") {
			t.Errorf("%q: the error does not list the disks: %s", c.hints, out.Error)
		}
	}
}

// The smallest disk is not the one when the image does not fit on it.
func TestDiskIsChosenForItsImage(t *testing.T) {
	r := newRig(t, 2<<20, 3<<20, 4<<20)
	r.images = serve(t, FormatRawZstd, make([]byte, 5<<19))
	run := r.runner(r.host())
	args := map[string]string{"sha256": r.images.man.SHA256}
	if out := mustRun(t, run, order("select_disk", args)); out.Facts["disk_id"] != "serial-S1" {
		t.Errorf("facts %v", out.Facts)
	}
	args["hint.rotational"] = "false" // all three; two are large enough
	if out := run.Run(context.Background(), order("select_disk", args), nil); out.Kind != fault.Ambiguous.String() {
		t.Errorf("%+v", out)
	}
	delete(args, "hint.rotational")
	args["hint.serial"] = "S0"
	if out := run.Run(context.Background(), order("select_disk", args), nil); out.Kind != fault.TooLarge.String() || !strings.Contains(out.Error, "2621440") || !strings.Contains(out.Error, "serial S0") {
		t.Errorf("%+v", out)
	}
	if out := run.Run(context.Background(), order("select_disk", map[string]string{"sha256": "00"}), nil); out.Kind != fault.NotFound.String() {
		t.Errorf("%+v", out)
	}
}

func TestOtherSteps(t *testing.T) {
	r := newRig(t, 1<<20)
	run := r.runner(r.host())
	run.cfg.Inventory = func() ([]byte, error) { return []byte("inventory"), nil }
	if out := mustRun(t, run, order("inspect.inventory", nil)); string(out.Inventory) != "inventory" {
		t.Errorf("inventory: %+v", out)
	}
	run.cfg.Inventory = func() ([]byte, error) { return make([]byte, MaxInventory+1), nil }
	if out := run.Run(context.Background(), order("inventory", nil), nil); out.Kind != fault.TooLarge.String() {
		t.Errorf("large inventory: %+v", out)
	}
	run.cfg.Inventory = func() ([]byte, error) { panic("broken") }
	if out := run.Run(context.Background(), order("inventory", nil), nil); out.Kind != fault.Internal.String() {
		t.Errorf("panic: %+v", out)
	}
	for step, then := range map[string]string{"tear_down_agent": "power off", "power_off": "power off", "reboot": "reboot"} {
		if out := mustRun(t, run, order(step, nil)); out.Then.String() != then {
			t.Errorf("%s: %s", step, out.Then)
		}
	}
	if out := run.Run(context.Background(), order("dance", nil), nil); out.Kind != fault.Unsupported.String() {
		t.Errorf("unknown step: %+v", out)
	}
}

// A disk that takes no writes keeps its data for the next tenant: the erase says so instead of passing it by.
func TestReadOnlyDiskFailsTheErase(t *testing.T) {
	for _, step := range []string{"erase_devices", "erase_devices_metadata"} {
		r := newRig(t, eraseSize, eraseSize, eraseSize)
		r.spec[1].ReadOnly, r.spec[2].Removable = true, true
		run := r.runner(r.host())
		out := run.Run(context.Background(), order(step, nil), nil)
		if out.OK || out.Kind != fault.Unsupported.String() || !strings.Contains(out.Error, "serial S1") || strings.Contains(out.Error, "serial S2") {
			t.Errorf("%s: %+v", step, out)
		}
		if len(r.writes(0)) != 0 {
			t.Errorf("%s: a disk was written to", step)
		}
		out = mustRun(t, run, order(step, map[string]string{"skip_read_only": "true"}))
		if out.Facts["disks"] != "serial-S0" || out.Facts["read_only"] != "serial-S1" || out.Facts["removable"] != "serial-S2" {
			t.Errorf("%s: facts %v", step, out.Facts)
		}
		if len(r.writes(2)) != 0 {
			t.Errorf("%s: a removable medium was written to", step)
		}
		if out := run.Run(context.Background(), order(step, map[string]string{"skip_read_only": "perhaps"}), nil); out.Kind != fault.Invalid.String() {
			t.Errorf("%s: %+v", step, out)
		}
	}
}

// Disks behind a controller without a driver are not seen, and so not erased: that is no success.
func TestControllerWithoutADriverFailsTheErase(t *testing.T) {
	r := newRig(t, eraseSize)
	run := r.runner(undrivenHost{r.host()})
	out := run.Run(context.Background(), order("erase_devices", nil), nil)
	if out.OK || out.Kind != fault.Unsupported.String() || !strings.Contains(out.Error, "9005:028d") || len(r.writes(0)) != 0 {
		t.Errorf("%+v", out)
	}
	out = mustRun(t, run, order("erase_devices", map[string]string{"skip_undriven": "true"}))
	if out.Facts["undriven"] != "0000:3b:00.0 9005:028d class 010400" || out.Facts["disks"] != "serial-S0" {
		t.Errorf("facts %v", out.Facts)
	}
}

type undrivenHost struct{ disk.Host }

func (undrivenHost) Undriven() ([]disk.Controller, error) {
	return []disk.Controller{{Address: "0000:3b:00.0", Class: "010400", VendorID: "9005", DeviceID: "028d"}}, nil
}

func TestNoImageOnADiskThatIsNotFixed(t *testing.T) {
	r := newRig(t, 2<<20, 3<<20, 4<<20)
	r.spec[0].ReadOnly, r.spec[1].Removable = true, true
	if out := mustRun(t, r.runner(r.host()), order("select_disk", nil)); out.Facts["disk_id"] != "serial-S2" {
		t.Errorf("facts %v", out.Facts)
	}
}
