package rootdevice

import (
	"testing"

	"github.com/farrier-project/farrier/pkg/hint"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
)

// A small disk is taken when there is no other.
func TestSmallDisksComeLast(t *testing.T) {
	disks := []disk.Info{{ID: "module", Size: 1 << 30}, {ID: "large", Size: 8 << 30}, {ID: "fit", Size: 5 << 30}}
	for want, from := range map[string][]disk.Info{"fit": disks, "module": disks[:1]} {
		if d, err := (Wanted{}).Choose(from, 1<<20); err != nil || d.ID != want {
			t.Errorf("%s, %v; want %s", d.ID, err, want)
		}
	}
}

// What the API takes, the ramdisk compares.
func TestEveryHintIsCompared(t *testing.T) {
	for _, h := range hint.All() {
		value := "1"
		if h == hint.Rotational {
			value = "true"
		}
		w, err := Read(map[string]string{"hint." + string(h): value})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := w.Choose([]disk.Info{{ID: "other"}}, 0); err == nil {
			t.Errorf("hint %s=%s chose %v", h, value, d)
		}
	}
}
