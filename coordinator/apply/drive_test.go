package apply

import (
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
)

// The ramdisk learns with the image whether there is data that must find a place beside it: an image that has none is
// refused before it is written, and goes without a config drive when nobody gave data.
func TestConfigDriveIsRequiredForDataThatWasGiven(t *testing.T) {
	for name, c := range map[string]struct {
		given node.Instance
		want  string
	}{
		"nothing":      {node.Instance{Hostname: "web-1"}, ""},
		"user data":    {node.Instance{UserData: node.Sealed{KeyID: 1, Box: []byte{7}}}, "required"},
		"network data": {node.Instance{NetworkData: node.Sealed{KeyID: 1, Box: []byte{7}}}, "required"},
		"meta data":    {node.Instance{MetaData: map[string]string{"role": "db"}}, "required"},
	} {
		w := newWorld(t)
		w.agent("r1", 1)
		id := w.create(1)
		w.to(id, "manage", "provide")
		p := w.verb(id, "active")
		p.Instance.UserData, p.Instance.NetworkData, p.Instance.MetaData = c.given.UserData, c.given.NetworkData, c.given.MetaData
		w.must(p)
		seen := map[string]bool{}
		for w.open(id) {
			if st := w.flow(id).Step(); st.FullName() == flow.StepWriteImage || st.FullName() == flow.StepConfigDrive {
				seen[st.FullName()] = true
				if got := st.Args["config_drive"]; got != c.want {
					t.Errorf("%s: %s has config_drive %q, want %q", name, st.FullName(), got, c.want)
				}
			}
			w.must(w.done(id))
		}
		if len(seen) != 2 {
			t.Errorf("%s: only %v", name, seen)
		}
	}
}

// With the setting erase=metadata the automated clean leaves erase_devices out; who asks for that step gets it.
func TestEraseByHandWithTheSettingMetadata(t *testing.T) {
	steps, err := flow.Phase2(flow.Spec{Kind: flow.Clean, Erase: "metadata", Manual: []flow.CleanStep{{Interface: "deploy", Name: "erase_devices"}}})
	if err != nil || steps[0].FullName() != flow.StepErase || steps[0].Args["method"] != "auto" {
		t.Errorf("%+v, %v", steps, err)
	}
	if steps, err = flow.Phase2(flow.Spec{Kind: flow.Clean, Erase: "metadata"}); err != nil || steps[0].FullName() != flow.StepEraseMeta || steps[1].FullName() == flow.StepErase {
		t.Errorf("%+v, %v", steps, err)
	}
}

// Large hard disks are overwritten for days: neither the attempt nor the boot attempt ends before, as long as the machine
// is heard from.
func TestLongWipeKeepsItsBootAttempt(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage")
	w.must(w.verb(id, "provide"))
	for w.flow(id).Step().FullName() != flow.StepErase {
		w.must(w.done(id))
	}
	const wipe = 83 * time.Hour // 30 TB at 100 MB/s
	f := w.flow(id)
	if left := f.Step().Attempt.Deadline - w.s.Root.Elapsed; left < wipe {
		t.Errorf("the attempt ends after %s", left)
	}
	if f.Boot.Expires < f.Step().Attempt.Deadline {
		t.Errorf("the boot attempt ends at %s, its step at %s", f.Boot.Expires, f.Step().Attempt.Deadline)
	}
}
