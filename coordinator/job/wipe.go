package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// refusedDisk is why an image may not be written to the disk that the ramdisk chose, or "".
func (j *job) refusedDisk(id string) string {
	switch {
	case id == "":
		return "the ramdisk named no disk"
	case len(id) > state.MaxNameLen || strings.Contains(id, ","):
		return "the ramdisk named a disk by what cannot be its id: " + state.Clip(id, 80)
	case len(j.n.Written) >= state.MaxWritten && !slices.Contains(j.n.Written, id):
		return fmt.Sprintf("%d disks were written to since the last wipe: clean the node first", state.MaxWritten)
	}
	return ""
}

// tenant notes that from now on a tenant's data may be on a disk.
func (j *job) tenant(disk string) {
	j.n.Tenanted, j.n.Wipe = true, nil
	if !slices.Contains(j.n.Written, disk) {
		j.n.Written = append(slices.Clone(j.n.Written), disk)
	}
}

// unerased is why an erase that is reported done did not do what it is for, or "": it has to name a method and the disks,
// and the disks that images were written to have to be among them. A disk that the ramdisk did not see was not erased.
func (j *job) unerased(facts map[string]string) string {
	switch method := facts[flow.FactMethod]; method {
	case node.WipeDiscard, node.WipeOverwrite, node.WipeMetadata:
	default:
		return "the ramdisk erased by no method that is known: " + strconv.Quote(state.Clip(method, 80))
	}
	erased := disksOf(facts)
	if len(erased) == 0 {
		return "the ramdisk erased no disk"
	}
	for _, disk := range j.n.Written {
		if !slices.Contains(erased, disk) {
			return fmt.Sprintf("disk %s, which an image was written to, is not among those that were erased (%s): let the ramdisk see it, or record a waiver if it is gone",
				disk, state.Clip(strings.Join(erased, ", "), 256))
		}
	}
	return ""
}

func disksOf(facts map[string]string) []string {
	if facts[flow.FactDisks] == "" {
		return nil
	}
	return strings.Split(facts[flow.FactDisks], ",")
}

// recordWipe notes what a done clean erased, and ends the tenancy if that is as much as the settings ask for: an erase of
// the metadata alone leaves the data, and counts only where the operator said that it is enough.
func (j *job) recordWipe(f *flow.Flow) {
	var best *flow.Step
	for i := range f.Steps {
		switch st := &f.Steps[i]; {
		case st.Status != flow.Done:
		case st.FullName() == flow.StepErase, st.FullName() == flow.StepEraseMeta && best == nil && j.s.Root.Settings.Erase == node.WipeMetadata:
			best = st
		}
	}
	if best == nil || j.unerased(best.Facts) != "" { // a disk was written to since: never in one flow
		return
	}
	j.n.Tenanted = false
	w := &node.Wipe{Method: best.Facts[flow.FactMethod], Disks: disksOf(best.Facts), At: j.s.Header.At}
	w.Sampled, _ = strconv.ParseUint(best.Facts[flow.FactSample], 10, 64) // absent is none
	j.setWipe(w)
}

// setWipe records a wipe or a waiver. What it does not cover by its disks it covers by its author's word.
func (j *job) setWipe(w *node.Wipe) {
	j.n.Wipe, j.n.Written = w, nil
	j.s.Emit(state.EventNodeWipe, j.n, "method", w.Method, "disks", strings.Join(w.Disks, ","), "sampled", state.Num(w.Sampled), "who", w.Who, "reason", w.Reason)
}
