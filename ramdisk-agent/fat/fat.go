package fat

import (
	"encoding/binary"
	"hash/crc32"
	"sort"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Limits of a file system.
const (
	MaxContent = 64 << 20 // bytes of all files together
	MaxFiles   = 256
	maxName    = 128 // characters
)

const (
	copies      = 2   // of the allocation table
	rootEntries = 512 // slots of the root directory
	slot        = 32  // bytes of a directory entry
	max12       = 4084
	max16       = 65524 // clusters that a FAT16 can have
	date        = 0x21  // 1980-01-01, the first that there is
)

// Attributes of directory entries.
const (
	attrLabel = 0x08
	attrDir   = 0x10
	attrFile  = 0x20
	attrLong  = 0x0f
)

// File is one file: a path of lower-case names, letters, digits, '.', '_' and '-', separated by '/'.
type File struct {
	Path string
	Data []byte
}

// entry is a file or a directory.
type entry struct {
	name    string
	dir     bool
	data    []byte
	entries []*entry // of a directory, by name

	cluster, clusters int
}

// Build makes a file system with the label (at most 11 characters) for logical sectors of 512 to 4096 bytes, no larger than
// it must be: FAT12 or FAT16, by the number of its clusters.
func Build(label string, sector int, files []File) ([]byte, error) {
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 {
		return nil, fault.New(fault.Invalid, "make FAT", "sectors of %d bytes", sector)
	}
	if label == "" || len(label) > 11 {
		return nil, fault.New(fault.Invalid, "make FAT", "label %q", label)
	}
	root, err := tree(files)
	if err != nil {
		return nil, err
	}
	v := &volume{label: label, sector: sector, serial: serial(files)}
	v.place(root)
	if v.next > max16 {
		return nil, fault.New(fault.TooLarge, "make FAT", "%d clusters of %d bytes", v.next, sector)
	}
	return v.write(root)
}

func serial(files []File) uint32 {
	sum := crc32.NewIEEE()
	for _, f := range files {
		_, _ = sum.Write([]byte(f.Path)) // never fails
		_, _ = sum.Write(f.Data)
	}
	return sum.Sum32()
}

func tree(files []File) (*entry, error) {
	if len(files) > MaxFiles {
		return nil, fault.New(fault.TooLarge, "make FAT", "%d files", len(files))
	}
	root, total := &entry{dir: true}, 0
	for _, f := range files {
		if total += len(f.Data); total > MaxContent {
			return nil, fault.New(fault.TooLarge, "make FAT", "more than %d bytes", MaxContent)
		}
		at := root
		names := strings.Split(f.Path, "/")
		for i, name := range names {
			if !valid(name) {
				return nil, fault.New(fault.Invalid, "make FAT", "path %q", f.Path)
			}
			last := i == len(names)-1
			next := at.find(name)
			if next != nil && (last || !next.dir) {
				return nil, fault.New(fault.Exists, "make FAT", "%q is there twice", f.Path)
			}
			if next == nil {
				next = &entry{name: name, dir: !last}
				at.entries = append(at.entries, next)
			}
			if at = next; last {
				at.data = f.Data
			}
		}
	}
	sortAll(root)
	return root, nil
}

func valid(name string) bool {
	if name == "" || len(name) > maxName || name[0] == '.' || name[len(name)-1] == '.' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}

func (e *entry) find(name string) *entry {
	for _, c := range e.entries {
		if c.name == name {
			return c
		}
	}
	return nil
}

func sortAll(e *entry) {
	sort.Slice(e.entries, func(i, j int) bool { return e.entries[i].name < e.entries[j].name })
	for _, c := range e.entries {
		sortAll(c)
	}
}

// slots is how many directory entries the contents of a directory take.
func (e *entry) slots() int {
	n := 2 // . and .., or the label and the end
	for _, c := range e.entries {
		n += longSlots(c.name) + 1
	}
	return n
}

func longSlots(name string) int { return (len(name) + 12) / 13 }

// volume lays out one file system; a cluster is a sector.
type volume struct {
	label  string
	sector int
	serial uint32
	next   int // cluster
	chains [][2]int
}

// place gives every file and directory its clusters, in one stretch each. Clusters count from 2.
func (v *volume) place(root *entry) {
	v.next = 2
	var visit func(*entry)
	visit = func(e *entry) {
		for _, c := range e.entries {
			size := len(c.data)
			if c.dir {
				size = c.slots() * slot
			}
			if c.clusters = (size + v.sector - 1) / v.sector; c.clusters > 0 {
				c.cluster = v.next
				v.chains = append(v.chains, [2]int{c.cluster, c.clusters})
				v.next += c.clusters
			}
			visit(c)
		}
	}
	visit(root)
}

func (v *volume) write(root *entry) ([]byte, error) {
	if root.slots() > rootEntries {
		return nil, fault.New(fault.TooLarge, "make FAT", "the root directory is full")
	}
	clusters := max(v.next-2, 1)
	bits := 12
	if clusters > max12 {
		bits = 16
	}
	tableSectors := ((clusters+2)*bits/8 + v.sector) / v.sector
	rootAt := 1 + copies*tableSectors
	dataAt := rootAt + rootEntries*slot/v.sector
	img := make([]byte, (dataAt+clusters)*v.sector)
	v.boot(img, bits, tableSectors, dataAt+clusters)
	table := v.table(bits, tableSectors)
	for i := range copies {
		copy(img[(1+i*tableSectors)*v.sector:], table)
	}
	copy(img[rootAt*v.sector:], v.directory(root, nil))
	var visit func(*entry)
	visit = func(e *entry) {
		for _, c := range e.entries {
			data := c.data
			if c.dir {
				data = v.directory(c, e)
			}
			copy(img[(dataAt+c.cluster-2)*v.sector:], data)
			visit(c)
		}
	}
	visit(root)
	return img, nil
}

// boot fills the boot sector (the BIOS parameter block of FAT12 and FAT16).
func (v *volume) boot(b []byte, bits, tableSectors, total int) {
	le := binary.LittleEndian
	copy(b, "\xeb\x3c\x90FARRIER ")
	le.PutUint16(b[11:], uint16(v.sector))
	b[13] = 1               // sectors of a cluster
	le.PutUint16(b[14:], 1) // reserved: this one
	b[16] = copies          //
	le.PutUint16(b[17:], rootEntries)
	if total < 1<<16 {
		le.PutUint16(b[19:], uint16(total))
	} else {
		le.PutUint32(b[32:], uint32(total))
	}
	b[21] = 0xf8 // a fixed disk
	le.PutUint16(b[22:], uint16(tableSectors))
	le.PutUint16(b[24:], 63)  // sectors of a track
	le.PutUint16(b[26:], 255) // heads
	b[36], b[38] = 0x80, 0x29 // fixed disk; serial, label and type follow
	le.PutUint32(b[39:], v.serial)
	copy(b[43:], padded(v.label, 11))
	copy(b[54:], padded("FAT"+map[int]string{12: "12", 16: "16"}[bits], 8))
	b[510], b[511] = 0x55, 0xaa
}

func padded(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }

// table makes one copy of the allocation table: each chain goes on with the next cluster.
func (v *volume) table(bits, sectors int) []byte {
	b := make([]byte, sectors*v.sector)
	set := func(cluster, value int) {
		if bits == 16 {
			binary.LittleEndian.PutUint16(b[2*cluster:], uint16(value))
			return
		}
		at := cluster * 3 / 2
		have := binary.LittleEndian.Uint16(b[at:])
		if cluster%2 == 0 {
			have |= uint16(value & 0xfff)
		} else {
			have |= uint16(value&0xfff) << 4
		}
		binary.LittleEndian.PutUint16(b[at:], have)
	}
	const end = 0xffff
	set(0, 0xfff8) // the media byte
	set(1, end)
	for _, c := range v.chains {
		for i := range c[1] - 1 {
			set(c[0]+i, c[0]+i+1)
		}
		set(c[0]+c[1]-1, end)
	}
	return b
}

// directory makes the entries of a directory; parent is nil for the root, whose first entry is the label.
func (v *volume) directory(d, parent *entry) []byte {
	var b []byte
	if parent == nil {
		b = append(b, short(padded(v.label, 11), attrLabel, 0, 0)...)
	} else {
		b = append(b, short(padded(".", 11), attrDir, d.cluster, 0)...)
		b = append(b, short(padded("..", 11), attrDir, parent.cluster, 0)...) // 0 when it is the root
	}
	for i, c := range d.entries {
		alias := alias(i)
		b = append(b, long(c.name, alias)...)
		kind := byte(attrFile)
		if c.dir {
			kind = attrDir
		}
		b = append(b, short(alias, kind, c.cluster, len(c.data))...)
	}
	return b
}

// alias is the short name that every entry must have beside its long one.
func alias(i int) string {
	const digits = "0123456789"
	return "FILE" + string([]byte{digits[i/1000%10], digits[i/100%10], digits[i/10%10], digits[i%10]}) + "   "
}

func short(name string, attr byte, cluster, size int) []byte {
	e := make([]byte, slot)
	copy(e, name)
	e[11] = attr
	binary.LittleEndian.PutUint16(e[16:], date)
	binary.LittleEndian.PutUint16(e[18:], date)
	binary.LittleEndian.PutUint16(e[24:], date)
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	return e
}

// long makes the entries that hold a long name, 13 characters each, the last part first.
func long(name, alias string) []byte {
	sum := byte(0)
	for i := range len(alias) {
		sum = sum<<7 | sum>>1
		sum += alias[i]
	}
	var b []byte
	for part := longSlots(name); part > 0; part-- {
		e := make([]byte, slot)
		e[0] = byte(part)
		if part == longSlots(name) {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, sum
		for i := range 13 {
			at := 1 + 2*i
			switch {
			case i >= 11:
				at = 28 + 2*(i-11)
			case i >= 5:
				at = 14 + 2*(i-5)
			}
			c := uint16(0xffff)
			switch k := (part-1)*13 + i; {
			case k < len(name):
				c = uint16(name[k])
			case k == len(name):
				c = 0
			}
			binary.LittleEndian.PutUint16(e[at:], c)
		}
		b = append(b, e...)
	}
	return b
}
