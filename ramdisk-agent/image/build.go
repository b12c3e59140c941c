package image

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
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

// Build writes the initial ramdisk with the program at initPath to out, whole or not at all. modules is the directory of
// a kernel's modules, or empty for none; names are the modules wanted, DefaultModules if empty. It returns those of the
// default that this kernel does not have: what needs them will not work.
func Build(out, initPath, modules string, names []string) (absent []string, err error) {
	program, err := os.ReadFile(initPath)
	if err != nil {
		return nil, fault.New(fault.NotFound, "build ramdisk", "%w", err)
	}
	c := Contents{Init: program}
	if modules != "" {
		optional := len(names) == 0
		if optional {
			names = DefaultModules()
		}
		if c.Modules, absent, err = Resolve(modules, names, optional); err != nil {
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
