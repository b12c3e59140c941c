package steps

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
)

const gib = 1 << 30

// selectDisk answers the one disk that matches all hints ("hint.<name>" arguments) and has min_bytes.
func (r *Runner) selectDisk(args map[string]string) (result, error) {
	disks, err := r.cfg.Host.Disks()
	if err != nil {
		return result{}, err
	}
	d, err := choose(disk.Fixed(disks), args)
	if err != nil {
		return result{}, err
	}
	return result{facts: map[string]string{"disk_id": d.ID, "disk_name": d.Name, "disk_bytes": strconv.FormatInt(d.Size, 10)}}, nil
}

// choose applies hints. With no hint it takes the smallest disk that is big enough, the first by stable id of several.
func choose(disks []disk.Info, args map[string]string) (disk.Info, error) {
	need := int64(0)
	hints := map[string]string{}
	for k, v := range args {
		if name, ok := strings.CutPrefix(k, "hint."); ok && v != "" {
			hints[name] = v
		}
	}
	if text := args["min_bytes"]; text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return disk.Info{}, badHint("min_bytes", text, "a number of bytes")
		}
		need = n
	}
	var fit []disk.Info
	for _, d := range disks {
		ok, err := matches(d, hints)
		if err != nil {
			return disk.Info{}, err
		}
		if ok && d.Size >= need {
			fit = append(fit, d)
		}
	}
	wanted := describe(hints, need)
	switch {
	case len(fit) == 0:
		return disk.Info{}, fault.New(fault.NoMatch, "select disk", "no disk matches %s; there are: %s", wanted, disk.List(disks)).
			WithHelp("change the node's root device hints to match one of them")
	case len(fit) > 1 && len(hints) > 0:
		return disk.Info{}, fault.New(fault.Ambiguous, "select disk", "%d disks match %s: %s", len(fit), wanted, disk.List(fit)).
			WithHelp("add a hint that only one of them has: serial or wwn")
	}
	sort.SliceStable(fit, func(i, j int) bool {
		if fit[i].Size != fit[j].Size {
			return fit[i].Size < fit[j].Size
		}
		return fit[i].ID < fit[j].ID
	})
	return fit[0], nil
}

func describe(hints map[string]string, need int64) string {
	var parts []string
	for k, v := range hints {
		parts = append(parts, fmt.Sprintf("%s=%q", k, v))
	}
	sort.Strings(parts)
	if need > 0 {
		parts = append(parts, fmt.Sprintf("at least %d bytes", need))
	}
	if len(parts) == 0 {
		return "(no hint)"
	}
	return strings.Join(parts, ", ")
}

func matches(d disk.Info, hints map[string]string) (bool, error) {
	for name, want := range hints {
		ok, err := match(d, name, want)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// match compares one hint. Texts are compared without regard to case; sizes are GiB, rounded down.
func match(d disk.Info, name, want string) (bool, error) {
	switch name {
	case "model":
		return strings.EqualFold(d.Model, want), nil
	case "vendor":
		return strings.EqualFold(d.Vendor, want), nil
	case "serial":
		return strings.EqualFold(d.Serial, want), nil
	case "wwn":
		trim := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "0x") }
		return trim(d.WWN) == trim(want) || strings.EqualFold(d.EUI, want), nil
	case "name":
		return d.Name == strings.TrimPrefix(want, "/dev/") || d.Path == want, nil
	case "id":
		return d.ID == want, nil
	case "by_path":
		return d.ByPath == want, nil
	case "size", "min_size_gib":
		n, err := strconv.ParseInt(want, 10, 64)
		if err != nil || n < 0 || n > 1<<32 {
			return false, badHint(name, want, "a number of GiB")
		}
		if name == "size" {
			return d.Size/gib == n, nil
		}
		return d.Size >= n*gib, nil
	case "rotational":
		b, err := strconv.ParseBool(want)
		if err != nil {
			return false, badHint(name, want, "true or false")
		}
		return d.Rotational == b, nil
	default:
		return false, fault.New(fault.Invalid, "select disk", "there is no hint %q", name).
			WithHelp("the hints are model, vendor, serial, wwn, size, name, id, by_path, rotational, min_size_gib").
			WithDetail(&fault.FieldDetail{Field: name})
	}
}

func badHint(name, text, want string) error {
	return fault.New(fault.Invalid, "select disk", "hint %s: %q is not %s", name, text, want).
		WithDetail(&fault.FieldDetail{Field: name})
}
