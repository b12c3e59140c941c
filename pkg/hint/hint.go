// Package hint is the list of root device hints: what a user may say of the disk that an image goes to. API, command line
// and ramdisk read it here, so that none offers what another refuses.
package hint

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Hint is one of them.
type Hint string

// All hints are Ironic's but for ID, the stable id that Farrier's inventory shows, and MinSizeGiB. ByPath is as the inventory
// shows it. Texts are compared whole and without regard to case, ID and ByPath with.
const (
	Model      Hint = "model"
	Vendor     Hint = "vendor"
	Serial     Hint = "serial"
	WWN        Hint = "wwn" // or the EUI of an NVMe namespace
	Size       Hint = "size"
	MinSizeGiB Hint = "min_size_gib"
	Name       Hint = "name" // of this boot: another may give it to another disk
	ID         Hint = "id"
	ByPath     Hint = "by_path"
	Rotational Hint = "rotational"
)

// MaxText bounds a hint's text, in bytes.
const MaxText = 255

// maxGiB bounds a size: 4 EiB.
const maxGiB = 1 << 32

// All is the hints in the order in which they are told to people.
func All() []Hint {
	return []Hint{Serial, WWN, ID, ByPath, Model, Vendor, Size, MinSizeGiB, Rotational, Name}
}

// List is All in one line.
func List() string {
	var names []string
	for _, h := range All() {
		names = append(names, string(h))
	}
	return strings.Join(names, ", ")
}

// Check checks one hint and its value. The error is fault.Invalid and names field.
func Check(field, name, value string) error {
	bad := func(text string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "check root device hints", text, args...).WithDetail(&fault.FieldDetail{Field: field + name})
	}
	switch Hint(name) {
	case Model, Vendor, Serial, WWN, Name, ID, ByPath:
		if value == "" || len(value) > MaxText || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
			return bad("hint %s is not a text of 1 to %d bytes", name, MaxText)
		}
	case Size, MinSizeGiB:
		if n, ok := GiB(value); !ok || n == 0 {
			return bad("hint %s: %.40q is not a number of GiB", name, value)
		}
	case Rotational:
		if value != "true" && value != "false" {
			return bad("hint %s: %.40q is not true or false", name, value)
		}
	default:
		return bad("there is no hint %.40q", name).WithHelp("the hints are %s", List())
	}
	return nil
}

// GiB reads a size.
func GiB(value string) (int64, bool) {
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil && n >= 0 && n <= maxGiB
}
