// Package rootdevice chooses the one disk that an image goes to, by root device hints and size. It looks at what is known of the
// disks, and at no disk.
package rootdevice

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/hint"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
)

const gib = 1 << 30

// smallDisk is what a disk is at least, where there is a choice: below it, it is likely one that firmware or a hypervisor
// boots from (Ironic's least root device).
const smallDisk = 4 * gib

// Wanted is what a disk must be.
type Wanted struct {
	hints map[hint.Hint]wanted
	bytes int64 // at least
	image bool  // bytes is an image's size
}

// wanted is a hint as it was written, and what it asks.
type wanted struct {
	text string
	hint.Condition
}

// Read reads "hint.<name>" arguments, and min_bytes. The error is fault.Invalid and names the field.
func Read(args map[string]string) (Wanted, error) {
	w := Wanted{hints: map[hint.Hint]wanted{}}
	for k, v := range args {
		name, ok := strings.CutPrefix(k, "hint.")
		if !ok || v == "" {
			continue
		}
		c, err := hint.Parse("hint.", name, v)
		if err != nil {
			return w, err
		}
		w.hints[hint.Hint(name)] = wanted{v, c}
	}
	if text := args["min_bytes"]; text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return w, fault.New(fault.Invalid, "select disk", "min_bytes: %q is not a number of bytes", text).
				WithDetail(&fault.FieldDetail{Field: "min_bytes"})
		}
		w.bytes = n
	}
	return w, nil
}

// Choose applies hints and size to the fixed ones of disks; image is the image's bytes, or 0. With no hint it takes the smallest
// disk that is big enough, the first by stable id of several. The error is fault.NoMatch, Ambiguous or TooLarge, and lists the disks.
func (w Wanted) Choose(disks []disk.Info, image int64) (disk.Info, error) {
	disks = disk.Fixed(disks)
	if image > w.bytes {
		w.bytes, w.image = image, true
	}
	var match, fit []disk.Info
	for _, d := range disks {
		if !matches(d, w.hints) {
			continue
		}
		match = append(match, d)
		if d.Size >= w.bytes {
			fit = append(fit, d)
		}
	}
	switch {
	case len(match) == 0:
		return disk.Info{}, fault.New(fault.NoMatch, "select disk", "no disk matches %s; there are: %s", w, disk.List(disks)).
			WithHelp("change the node's root device hints to match one of them")
	case len(fit) == 0 && w.image:
		return disk.Info{}, fault.New(fault.TooLarge, "select disk", "the image has %d bytes, no disk that matches %s has as many: %s", w.bytes, w, disk.List(match)).
			WithHelp("choose a larger disk by the root device hints, or a smaller image")
	case len(fit) == 0:
		return disk.Info{}, fault.New(fault.NoMatch, "select disk", "no disk that matches %s has %d bytes; there are: %s", w, w.bytes, disk.List(match)).
			WithHelp("change the node's root device hints to match one of them")
	case len(fit) > 1 && len(w.hints) > 0:
		return disk.Info{}, fault.New(fault.Ambiguous, "select disk", "%d disks match %s: %s", len(fit), w, disk.List(fit)).
			WithHelp("add a hint that only one of them has: serial, wwn or id")
	}
	sort.SliceStable(fit, func(i, j int) bool {
		a, b := fit[i], fit[j]
		if smallA := a.Size < smallDisk; smallA != (b.Size < smallDisk) {
			return !smallA
		}
		if a.Size != b.Size {
			return a.Size < b.Size
		}
		return a.ID < b.ID
	})
	return fit[0], nil
}

// String is the hints, for errors.
func (w Wanted) String() string {
	var parts []string
	for k, v := range w.hints {
		parts = append(parts, fmt.Sprintf("%s=%q", k, v.text))
	}
	if len(parts) == 0 {
		return "(no hint)"
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

func matches(d disk.Info, hints map[hint.Hint]wanted) bool {
	for name, want := range hints {
		if !match(d, name, want.Condition) {
			return false
		}
	}
	return true
}

func match(d disk.Info, name hint.Hint, want hint.Condition) bool {
	switch name {
	case hint.Model:
		return want.Text(d.Model)
	case hint.Vendor:
		return want.Text(d.Vendor)
	case hint.Serial:
		return want.Text(d.Serial)
	case hint.WWN:
		return want.Text(d.WWN, d.EUI)
	case hint.Name:
		return want.Text(d.Name, d.Path)
	case hint.ID:
		return want.Text(d.ID)
	case hint.ByPath:
		return want.Text(d.ByPath)
	case hint.Size, hint.MinSizeGiB:
		return want.GiB(d.Size / gib)
	case hint.Rotational:
		return want.Text(strconv.FormatBool(d.Rotational))
	default:
		panic("rootdevice: hint " + string(name) + " is in the list, and not compared")
	}
}
