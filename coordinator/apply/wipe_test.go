package apply

import (
	"strings"
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestAWipeOfNothingMadeANodeAvailable: a ramdisk that did not see the disk with the tenant's data, or saw none at all,
// reports success all the same. The clean fails with what is missing, and the node is not given to anybody.
func TestAWipeOfNothingMadeANodeAvailable(t *testing.T) {
	for name, c := range map[string]struct {
		facts map[string]string
		cause string
	}{
		"no disk":         {map[string]string{flow.FactMethod: "none", flow.FactDisks: "", flow.FactSample: "0"}, `by no method that is known: "none"`},
		"no names":        {map[string]string{flow.FactMethod: "discard", flow.FactSample: "64"}, "the ramdisk erased no disk"},
		"another disk":    {map[string]string{flow.FactMethod: "overwrite", flow.FactDisks: "d2,d3"}, "disk d1, which an image was written to, is not among"},
		"an alike disk":   {map[string]string{flow.FactMethod: "overwrite", flow.FactDisks: "d11"}, "disk d1, which an image was written to, is not among"},
		"nothing is said": {nil, "by no method that is known"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.agent("r1", 1)
			id := w.create(1)
			w.to(id, "manage", "provide", "active")
			good := w.wiped
			w.wiped = c.facts
			w.to(id, "deleted")
			w.is(id, "clean failed")
			n := w.node(id)
			if !strings.HasPrefix(n.LastError, "clean: deploy.erase_devices_metadata: ") || !strings.Contains(n.LastError, c.cause) {
				t.Errorf("last error %q", n.LastError)
			}
			if !n.Tenanted || n.Wipe != nil || len(n.Written) != 1 || n.Written[0] != "d1" {
				t.Errorf("tenanted %v, wipe %+v, written %v", n.Tenanted, n.Wipe, n.Written)
			}
			if err := w.s.invariants(); err != nil {
				t.Error(err)
			}
			w.wiped = good
			w.must(command.SetMaintenance{Node: id})
			w.to(id, "manage", "provide")
			w.is(id, "available")
			if n := w.node(id); n.Tenanted || n.Written != nil || n.Wipe == nil || n.Wipe.Method != "discard" || strings.Join(n.Wipe.Disks, " ") != "d1 d2" || n.Wipe.Sampled != 64 {
				t.Errorf("tenanted %v, wipe %+v, written %v", n.Tenanted, n.Wipe, n.Written)
			}
		})
	}
}

// TestDisksOfEarlierTenantsWereForgotten: a rebuild onto another disk leaves an image on both.
func TestDisksOfEarlierTenantsWereForgotten(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.to(id, "manage", "provide", "active")
	w.disk = "d3"
	w.to(id, "rebuild")
	if got := strings.Join(w.node(id).Written, " "); got != "d1 d3" {
		t.Fatalf("images were written to %s", got)
	}
	w.to(id, "deleted")
	w.is(id, "clean failed") // d1 and d2 were erased
	w.must(command.SetMaintenance{Node: id})
	w.to(id, "manage")
	w.must(command.WaiveWipe{Node: id, Reason: "d3 was shredded"})
	w.to(id, "provide")
	w.is(id, "available")
}

// TestAMetadataCleanByHandCountedAsAWipe: it leaves the tenant's data, unless the settings say that it is enough.
func TestAMetadataCleanByHandCountedAsAWipe(t *testing.T) {
	for _, erase := range []string{"auto", "metadata"} {
		w := newWorld(t)
		set := command.DefaultSettings()
		set.Erase = erase
		w.must(command.UpdateSettings{Settings: set})
		w.agent("r1", 1)
		id := w.create(1)
		off := false
		w.must(command.UpdateNode{Node: node.Node{ID: id, AutomatedClean: &off}, Fields: []string{"automated_clean"}})
		w.to(id, "manage", "provide", "active", "deleted")
		w.is(id, "manageable")
		w.to(id, "clean") // deploy.erase_devices_metadata
		w.is(id, "manageable")
		if erase == "metadata" {
			w.to(id, "provide")
			w.is(id, "available")
			if n := w.node(id); n.Wipe.Method != "metadata" {
				t.Errorf("wiped by %s", n.Wipe.Method)
			}
			continue
		}
		if n := w.node(id); !n.Tenanted || n.Wipe != nil || len(n.Written) == 0 {
			t.Errorf("tenanted %v, wipe %+v", n.Tenanted, n.Wipe)
		}
		w.refused(w.verb(id, "provide"), fault.IllegalState)
	}
}
