package image

import (
	"bytes"
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/farrier-project/farrier/pkg/fault"
)

// maxModule bounds a module's file, in bytes.
const maxModule = 64 << 20

// Module is a kernel module with its bytes.
type Module struct {
	Name string // with underscores
	Data []byte
}

// DefaultModules are what machines of the field need to be reached and written to. A kernel that has one of them built
// in, or not at all, goes without it.
func DefaultModules() []string {
	return []string{"virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng", "nvme", "ahci", "sd_mod",
		"af_packet", "e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice", "bnx2x", "bnxt_en", "mlx4_en", "mlx5_core", "tg3", "r8169",
		"vmxnet3", "vmw_pvscsi", "hv_netvsc", "hv_storvsc", "vmd", "ata_piix", "ata_generic", "sata_mv", "sata_sil24",
		"megaraid_sas", "mpt3sas", "mpi3mr", "mptsas", "mptspi", "hpsa", "smartpqi", "aacraid", "arcmsr", "isci", "mvsas", "pm80xx",
		"3w_sas", "3w_9xxx"}
}

// Resolve reads the named modules and all that they depend on from a directory such as /lib/modules/6.1.0-9-amd64, in an
// order in which each can be loaded. Dependencies come from each module's own .modinfo section (depends, softdep pre), so
// that modules.dep, which a package's installation makes, is not needed. A name that the kernel has built in is left out;
// one that is nowhere is fault.NotFound, or with optional among those that are absent.
func Resolve(dir string, names []string, optional bool) (modules []Module, absent []string, err error) {
	r := &resolver{paths: map[string]string{}, builtin: map[string]bool{}, state: map[string]int{}}
	if err := r.index(dir); err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		name = canonical(name)
		if _, ok := r.paths[name]; !ok {
			switch {
			case r.builtin[name]:
				continue
			case optional:
				absent = append(absent, name)
				continue
			}
			return nil, nil, fault.New(fault.NotFound, "resolve modules", "%s has no module %s", dir, name)
		}
		if err := r.visit(name); err != nil {
			return nil, nil, err
		}
	}
	return r.order, absent, nil
}

type resolver struct {
	paths   map[string]string
	builtin map[string]bool
	state   map[string]int // 1: being visited, 2: done
	order   []Module
}

func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

func (r *resolver) index(dir string) error {
	if data, err := os.ReadFile(filepath.Join(dir, "modules.builtin")); err == nil {
		for line := range strings.Lines(string(data)) {
			r.builtin[canonical(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := strings.CutSuffix(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			r.paths[canonical(name)] = path
		}
		if d.Type().IsRegular() && (strings.HasSuffix(d.Name(), ".ko.xz") || strings.HasSuffix(d.Name(), ".ko.zst")) {
			return fault.New(fault.Unsupported, "resolve modules", "%s is compressed", path).WithHelp("unpack the modules first: Farrier loads them as they are")
		}
		return nil
	})
	if err != nil {
		return fault.Wrap("read modules", err)
	}
	if len(r.paths) == 0 {
		return fault.New(fault.NotFound, "resolve modules", "%s holds no kernel modules", dir).WithHelp("name the directory lib/modules/VERSION of a kernel package")
	}
	return nil
}

func (r *resolver) visit(name string) error {
	switch r.state[name] {
	case 1:
		return nil // a circle of soft dependencies: the kernel copes
	case 2:
		return nil
	}
	r.state[name] = 1
	data, needs, soft, err := read(r.paths[name])
	if err != nil {
		return err
	}
	for _, dep := range soft {
		if _, ok := r.paths[dep]; ok {
			if err := r.visit(dep); err != nil {
				return err
			}
		}
	}
	for _, dep := range needs {
		if _, ok := r.paths[dep]; !ok {
			if r.builtin[dep] {
				continue
			}
			return fault.New(fault.NotFound, "resolve modules", "%s needs %s, which is not there", name, dep)
		}
		if err := r.visit(dep); err != nil {
			return err
		}
	}
	r.state[name] = 2
	r.order = append(r.order, Module{Name: name, Data: data})
	return nil
}

// read returns a module's bytes and what its .modinfo says that it needs.
func read(path string) (data []byte, needs, soft []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, nil, fault.Wrap("read module", err)
	}
	if info.Size() > maxModule {
		return nil, nil, nil, fault.New(fault.TooLarge, "read module", "%s has %d bytes", path, info.Size())
	}
	if data, err = os.ReadFile(path); err != nil {
		return nil, nil, nil, fault.Wrap("read module", err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, nil, fault.New(fault.Corrupt, "read module", "%s: %w", path, err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil, nil, fault.New(fault.Corrupt, "read module", "%s has no .modinfo section", path)
	}
	modinfo, err := section.Data()
	if err != nil {
		return nil, nil, nil, fault.New(fault.Corrupt, "read module", "%s: %w", path, err)
	}
	for entry := range strings.SplitSeq(string(modinfo), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			for _, d := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				needs = append(needs, canonical(d))
			}
		case "softdep":
			soft = append(soft, softPre(value)...)
		}
	}
	slices.Sort(needs)
	return data, needs, soft, nil
}

// softPre reads "pre: a b post: c".
func softPre(value string) (pre []string) {
	in := false
	for _, word := range strings.Fields(value) {
		switch word {
		case "pre:":
			in = true
		case "post:":
			in = false
		default:
			if in {
				pre = append(pre, canonical(word))
			}
		}
	}
	return pre
}
