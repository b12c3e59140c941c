package state

import (
	"testing"

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
