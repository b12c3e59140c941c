// Package hint is the list of root device hints: what a user may say of the disk that an image goes to. API, command line
// and ramdisk read it here, so that none offers what another refuses.
package hint

import "strings"

// Hint is one of them.
type Hint string

// All hints are Ironic's but for ID, the stable id that Farrier's inventory shows, and MinSizeGiB. ByPath is as the inventory
// shows it. Texts are compared without regard to case, ID and ByPath with; for operators see Condition.
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
