package erase

import (
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
)

func TestWhatIsLeftIsNamed(t *testing.T) {
	disks := []disk.Info{{ID: "stick", Removable: true}, {ID: "locked", ReadOnly: true}, {ID: "a"}, {ID: "b"}}
	p, err := planOf(disks, nil, map[string]string{"skip_read_only": "true"})
	if err != nil || len(p.disks) != 2 || p.disks[0].ID != "a" || p.facts["removable"] != "stick" || p.facts["read_only"] != "locked" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := planOf(disks, nil, nil); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "locked") {
		t.Errorf("a read-only disk: %v", err)
	}
	if _, err := planOf(nil, nil, map[string]string{"skip_undriven": "perhaps"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an argument that is neither: %v", err)
	}
}

func TestNamesOfManyDisksAreBounded(t *testing.T) {
	var disks []disk.Info
	for range 200 {
		disks = append(disks, disk.Info{ID: "removable", Removable: true})
	}
	p, err := planOf(disks, nil, nil)
	if got := p.facts["removable"]; err != nil || len(got) > maxNamed+len(",...") || !strings.HasSuffix(got, "removable,...") {
		t.Errorf("%v: %d bytes: %s", err, len(got), got)
	}
}

func TestWeakestMethodIsTold(t *testing.T) {
	if got := weakest([]string{"discard", "overwrite", "discard"}); got != "overwrite" {
		t.Errorf("discard and overwrite are called %s", got)
	}
}
