package iso

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	block    = 2048
	rrNone   = 0
	rrRoot   = 1
	rrNamed  = 2
	dirMode  = 0o040755
	fileMode = 0o100444
)

// DescriptorAt is where the volume descriptor begins, in bytes: "CD001" stands at 1 in it, the volume id at 40.
const DescriptorAt = 16 * block

// Limits of an image.
const (
	MaxContent = 64 << 20 // bytes of all files together
	MaxFiles   = 256
)

// File is one file: a path of lower-case names, letters, digits, '.', '_' and '-', separated by '/'.
type File struct {
	Path string
	Data []byte
}

type dir struct {
	name   string
	parent *dir
	dirs   []*dir
	files  []File // Path is the name alone
	number uint16 // in the path table
	lba    uint32
	blocks uint32
	extent []uint32 // lba of each file
}

// Build makes an image with the volume id (at most 32 characters).
func Build(volume string, files []File) ([]byte, error) {
	root, err := tree(volume, files)
	if err != nil {
		return nil, err
	}
	dirs := walk(root)
	pathTable := makePathTable(dirs, binary.LittleEndian) // for its length only
	tableBlocks := blocks(len(pathTable))
	next := uint32(16 + 2) // system area, primary descriptor, terminator
	little := next
	big := little + tableBlocks
	next = big + tableBlocks
	continuation := next // of the root's ER entry
	next++
	for _, d := range dirs {
		d.lba, d.blocks = next, blocks(len(d.records(continuation)))
		next += d.blocks
	}
	for _, d := range dirs {
		d.extent = make([]uint32, len(d.files))
		for i, f := range d.files {
			d.extent[i] = next
			next += blocks(len(f.Data))
		}
	}
	img := make([]byte, int64(next)*block)
	put := func(lba uint32, b []byte) { copy(img[int64(lba)*block:], b) }
	put(16, primary(volume, next, uint32(len(pathTable)), little, big, root))
	put(17, append([]byte{255}, "CD001\x01"...))
	put(little, makePathTable(dirs, binary.LittleEndian))
	put(big, makePathTable(dirs, binary.BigEndian))
	put(continuation, extensionReference())
	for _, d := range dirs {
		put(d.lba, d.records(continuation))
		for i, f := range d.files {
			put(d.extent[i], f.Data)
		}
	}
	return img, nil
}

func blocks(n int) uint32 { return uint32((n + block - 1) / block) }

func tree(volume string, files []File) (*dir, error) {
	if volume == "" || len(volume) > 32 {
		return nil, fault.New(fault.Invalid, "make ISO image", "volume id %q is not 1 to 32 characters", volume)
	}
	if len(files) > MaxFiles {
		return nil, fault.New(fault.TooLarge, "make ISO image", "more than %d files", MaxFiles)
	}
	root, total := &dir{}, 0
	for _, f := range files {
		if total += len(f.Data); total > MaxContent {
			return nil, fault.New(fault.TooLarge, "make ISO image", "more than %d bytes", MaxContent)
		}
		parts := strings.Split(f.Path, "/")
		for _, p := range parts {
			if !validName(p) {
				return nil, fault.New(fault.Invalid, "make ISO image", "%q is not a path of plain lower-case names", f.Path)
			}
		}
		d := root
		for _, p := range parts[:len(parts)-1] {
			d = d.child(p)
		}
		name := parts[len(parts)-1]
		if slices.ContainsFunc(d.files, func(g File) bool { return g.Path == name }) {
			return nil, fault.New(fault.Exists, "make ISO image", "%q is there twice", f.Path)
		}
		d.files = append(d.files, File{Path: name, Data: f.Data})
	}
	return root, nil
}

func validName(p string) bool {
	if p == "" || len(p) > 28 || strings.Count(p, ".") > 1 || p[0] == '.' {
		return false
	}
	for _, c := range p {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func (d *dir) child(name string) *dir {
	for _, c := range d.dirs {
		if c.name == name {
			return c
		}
	}
	c := &dir{name: name, parent: d}
	d.dirs = append(d.dirs, c)
	return c
}

// walk numbers the directories breadth first, as the path table wants them, and sorts what they hold.
func walk(root *dir) []*dir {
	root.parent = root
	all := []*dir{root}
	for i := 0; i < len(all); i++ {
		d := all[i]
		d.number = uint16(i + 1)
		sort.Slice(d.dirs, func(a, b int) bool { return isoDir(d.dirs[a].name) < isoDir(d.dirs[b].name) })
		sort.Slice(d.files, func(a, b int) bool { return isoFile(d.files[a].Path) < isoFile(d.files[b].Path) })
		all = append(all, d.dirs...)
	}
	return all
}

func isoDir(name string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
}

func isoFile(name string) string {
	base, ext, _ := strings.Cut(name, ".")
	return isoDir(base) + "." + isoDir(ext) + ";1"
}

func makePathTable(dirs []*dir, order binary.AppendByteOrder) []byte {
	var b []byte
	for _, d := range dirs {
		name := isoDir(d.name)
		if d.parent == d {
			name = "\x00"
		}
		b = append(b, byte(len(name)), 0)
		b = order.AppendUint32(b, d.lba)
		b = order.AppendUint16(b, d.parent.number)
		b = append(b, name...)
		if len(name)%2 == 1 {
			b = append(b, 0)
		}
	}
	return b
}

// records is the directory's extent. No record crosses a block (ECMA-119 6.8.1.1).
func (d *dir) records(continuation uint32) []byte {
	size := d.blocks * block
	var b []byte
	add := func(r []byte) {
		if len(b)/block != (len(b)+len(r)-1)/block {
			b = append(b, make([]byte, block-len(b)%block)...)
		}
		b = append(b, r...)
	}
	self := rrNone
	if d.parent == d {
		self = rrRoot
	}
	add(record("\x00", d.lba, size, true, self, "", continuation))
	add(record("\x01", d.parent.lba, d.parent.blocks*block, true, rrNone, "", 0))
	type item struct {
		iso string
		rec []byte
	}
	var items []item
	for _, c := range d.dirs {
		items = append(items, item{isoDir(c.name), record(isoDir(c.name), c.lba, c.blocks*block, true, rrNamed, c.name, 0)})
	}
	for i, f := range d.files {
		var lba uint32
		if i < len(d.extent) {
			lba = d.extent[i]
		}
		items = append(items, item{isoFile(f.Path), record(isoFile(f.Path), lba, uint32(len(f.Data)), false, rrNamed, f.Path, 0)})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].iso < items[j].iso })
	for _, it := range items {
		add(it.rec)
	}
	return b
}

// record is one directory record (ECMA-119 9.1) with its Rock Ridge entries.
func record(id string, lba, size uint32, isDir bool, rr int, name string, continuation uint32) []byte {
	b := []byte{0, 0}
	b = both32(b, lba)
	b = both32(b, size)
	b = append(b, make([]byte, 7)...) // no date
	flags, mode, links := byte(0), uint32(fileMode), uint32(1)
	if isDir {
		flags, mode, links = 2, dirMode, 2
	}
	b = append(b, flags, 0, 0)
	b = both16(b, 1)
	b = append(b, byte(len(id)))
	b = append(b, id...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	if rr == rrRoot {
		b = append(b, 'S', 'P', 7, 1, 0xbe, 0xef, 0)
	}
	b = append(b, 'P', 'X', 36, 1)
	for _, v := range []uint32{mode, links, 0, 0} { // mode, links, uid, gid
		b = both32(b, v)
	}
	if rr == rrNamed {
		b = append(b, 'N', 'M', byte(5+len(name)), 1, 0)
		b = append(b, name...)
	}
	if rr == rrRoot {
		b = append(b, 'C', 'E', 28, 1)
		b = both32(b, continuation)
		b = both32(b, 0)
		b = both32(b, uint32(len(extensionReference())))
	}
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

// extensionReference names Rock Ridge (SUSP 5.5).
func extensionReference() []byte {
	const id, des, src = "RRIP_1991A", "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS",
		"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE."
	b := []byte{'E', 'R', byte(8 + len(id) + len(des) + len(src)), 1, byte(len(id)), byte(len(des)), byte(len(src)), 1}
	return append(b, id+des+src...)
}

// primary is the primary volume descriptor (ECMA-119 8.4).
func primary(volume string, total, tableSize, little, big uint32, root *dir) []byte {
	b := append([]byte{1}, "CD001\x01\x00"...)
	b = append(b, fmt.Sprintf("%-32s", "LINUX")...)
	b = append(b, fmt.Sprintf("%-32s", volume)...)
	b = append(b, make([]byte, 8)...)
	b = both32(b, total)
	b = append(b, make([]byte, 32)...)
	b = both16(b, 1)
	b = both16(b, 1)
	b = both16(b, block)
	b = both32(b, tableSize)
	b = binary.LittleEndian.AppendUint32(b, little)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, big)
	b = append(b, 0, 0, 0, 0)
	b = append(b, rootRecord(root)...)
	b = append(b, strings.Repeat(" ", 4*128+3*37)...)
	for range 4 { // no dates: 16 zero digits and a zero offset (8.4.26.1)
		b = append(b, "0000000000000000\x00"...)
	}
	return append(b, 1, 0)
}

// rootRecord is the root's record without system use, which must be 34 bytes here.
func rootRecord(root *dir) []byte {
	b := record("\x00", root.lba, root.blocks*block, true, rrNone, "", 0)[:34]
	b[0] = 34
	return b
}

func both32(b []byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, v), v)
}

func both16(b []byte, v uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, v), v)
}
