package image

import (
	"compress/gzip"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// OrderFile lists the modules below /modules, one a line, in the order in which /init loads them.
const OrderFile = "modules/order"

// File is one more file of an archive.
type File struct {
	Name string // without a leading slash; its directory is made
	Perm uint32
	Data []byte
}

// Contents is what goes into an initial ramdisk.
type Contents struct {
	Init    []byte // the program that becomes process 1
	Modules []Module
	Files   []File
}

// Write writes the initial ramdisk, compressed.
func Write(w io.Writer, c Contents) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // the header's name and time stay zero
	if err != nil {
		return fault.Wrap("write ramdisk", err)
	}
	a := NewArchive(z)
	made := map[string]bool{".": true}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "modules"} {
		mkdir(a, made, d)
	}
	a.CharDevice("dev/console", 5, 1) // process 1's output until devtmpfs is mounted
	a.CharDevice("dev/null", 1, 3)
	a.File("init", 0o755, c.Init)
	var order strings.Builder
	for _, m := range c.Modules {
		a.File("modules/"+m.Name+".ko", 0o644, m.Data)
		order.WriteString(m.Name + ".ko\n")
	}
	a.File(OrderFile, 0o644, []byte(order.String()))
	for _, f := range c.Files {
		mkdir(a, made, filepath.Dir(f.Name))
		a.File(f.Name, f.Perm, f.Data)
	}
	if err := a.Close(); err != nil {
		return fault.Wrap("write ramdisk", err)
	}
	return fault.Wrap("write ramdisk", z.Close())
}

func mkdir(a *Archive, made map[string]bool, dir string) {
	if made[dir] {
		return
	}
	mkdir(a, made, filepath.Dir(dir))
	made[dir] = true
	a.Dir(dir)
}

// Source says what a ramdisk is built from.
type Source struct {
	Init    string            // the program that becomes process 1
	Modules string            // directory of a kernel's modules, or empty for none
	Names   []string          // the modules wanted; DefaultModules if empty
	Files   map[string]string // further files, by their names in the ramdisk: firmware that modules load
}

// Build writes the initial ramdisk to out, whole or not at all. It returns the modules of the default that this kernel does
// not have: what needs them will not work.
func Build(out string, from Source) (absent []string, err error) {
	program, err := os.ReadFile(from.Init)
	if err != nil {
		return nil, fault.New(fault.NotFound, "build ramdisk", "%w", err)
	}
	c := Contents{Init: program}
	for _, name := range slices.Sorted(maps.Keys(from.Files)) {
		if !fs.ValidPath(name) || name == "." {
			return nil, fault.New(fault.Invalid, "build ramdisk", "file name %q is not a path in the ramdisk, like lib/firmware/NAME", name)
		}
		data, err := os.ReadFile(from.Files[name])
		if err != nil {
			return nil, fault.New(fault.NotFound, "build ramdisk", "%w", err)
		}
		c.Files = append(c.Files, File{Name: name, Perm: 0o644, Data: data})
	}
	if from.Modules != "" {
		names, optional := from.Names, len(from.Names) == 0
		if optional {
			names = DefaultModules()
		}
		if c.Modules, absent, err = Resolve(from.Modules, names, optional); err != nil {
			return nil, fault.Wrap("build ramdisk", err)
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".ramdisk-*")
	if err != nil {
		return nil, fault.Wrap("build ramdisk", err)
	}
	defer os.Remove(tmp.Name())
	if err := Write(tmp, c); err != nil {
		return nil, err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return nil, fault.Wrap("build ramdisk", err)
	}
	if err := tmp.Close(); err != nil {
		return nil, fault.Wrap("build ramdisk", err)
	}
	return absent, fault.Wrap("build ramdisk", os.Rename(tmp.Name(), out))
}
