package image

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/pkg/fault"
)

const maxModule = 64 << 20 // bytes of one kernel module, decompressed

// Defaults are the modules put in when none is named: disks and NICs of servers and of QEMU. Those that the kernel
// package does not have, or has built in, are left out.
func Defaults() []string {
	return []string{
		"virtio_pci", "virtio_rng", "virtio_net", "virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix", "nvme", "af_packet",
		"e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice", "tg3", "bnx2", "bnx2x", "bnxt_en", "mlx4_en", "mlx5_core",
		"r8169", "vmxnet3", "vmw_pvscsi", "hv_netvsc", "hv_storvsc", "megaraid_sas", "mpt3sas", "hpsa", "smartpqi", "aacraid",
	}
}

// module is a kernel module that was found.
type module struct {
	name string // with underscores
	path string
	data []byte
	pre  []string // to load before it
	post []string // to load after it
}

// tree is the modules below a directory, by name, read when needed.
type tree struct {
	paths   map[string]string
	builtin map[string]bool
	read    map[string]*module
}

func plain(name string) string { return strings.ReplaceAll(name, "-", "_") }

// scan finds every module below dir.
func scan(dir string) (*tree, error) {
	t := &tree{paths: map[string]string{}, builtin: map[string]bool{}, read: map[string]*module{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "modules.builtin" {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, line := range strings.Fields(string(b)) {
				t.builtin[plain(strings.TrimSuffix(filepath.Base(line), ".ko"))] = true
			}
		}
		base, _, ok := strings.Cut(d.Name(), ".ko")
		if !ok || d.IsDir() || !strings.Contains(d.Name(), ".ko") {
			return nil
		}
		name := plain(base)
		if old, ok := t.paths[name]; ok {
			return fault.New(fault.Ambiguous, "find modules", "%s is at %s and at %s", name, old, path).
				WithHelp("name the directory of one kernel: lib/modules/VERSION")
		}
		t.paths[name] = path
		return nil
	})
	if err != nil {
		if fault.KindOf(err) != fault.Internal {
			return nil, err
		}
		return nil, fault.New(fault.NotFound, "find modules", "%w", err)
	}
	return t, nil
}

func (t *tree) module(name string) (*module, error) {
	if m := t.read[name]; m != nil {
		return m, nil
	}
	m := &module{name: name, path: t.paths[name]}
	b, err := readModule(m.path)
	if err != nil {
		return nil, fault.Wrap("read module "+name, err)
	}
	m.data = b
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fault.New(fault.Corrupt, "read module "+name, "%w", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fault.New(fault.Corrupt, "read module "+name, "it has no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, fault.New(fault.Corrupt, "read module "+name, "%w", err)
	}
	for _, line := range strings.Split(string(info), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					m.pre = append(m.pre, plain(d))
				}
			}
		case "softdep":
			m.soft(value)
		}
	}
	t.read[name] = m
	return m, nil
}

// soft reads "pre: a b post: c": wishes, not needs.
func (m *module) soft(value string) {
	to := &m.pre
	for _, word := range strings.Fields(value) {
		switch word {
		case "pre:":
			to = &m.pre
		case "post:":
			to = &m.post
		default:
			*to = append(*to, plain(word))
		}
	}
}

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "open", "%w", err)
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".ko":
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fault.New(fault.Corrupt, "decompress", "%w", err)
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(f)
		if err != nil {
			return nil, fault.New(fault.Corrupt, "decompress", "%w", err)
		}
		defer z.Close()
		r = z
	default:
		return nil, fault.New(fault.Unsupported, "open", "%s is compressed in a form that cannot be read", filepath.Base(path)).
			WithHelp("decompress the modules first: find DIR -name '*.ko.xz' -exec unxz {} +")
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Corrupt, "read", "%w", err)
	case len(b) > maxModule:
		return nil, fault.New(fault.TooLarge, "read", "more than %d bytes", maxModule)
	}
	return b, nil
}

// resolve is the wanted modules and what they need, each after what it needs. With strict, every wanted one must be there or
// built in.
func (t *tree) resolve(wanted []string, strict bool) ([]*module, error) {
	var out []*module
	state := map[string]int{} // 1: being resolved, 2: done
	var visit func(name string, must bool) error
	visit = func(name string, must bool) error {
		if state[name] != 0 {
			return nil // done, or a circle of wishes
		}
		if t.paths[name] == "" {
			if must && !t.builtin[name] {
				return fault.New(fault.NotFound, "find modules", "there is no module %s", name).
					WithHelp("it may be in another package of the same kernel, or spelled differently")
			}
			return nil
		}
		state[name] = 1
		m, err := t.module(name)
		if err != nil {
			return err
		}
		for _, d := range m.pre {
			if err := visit(d, false); err != nil {
				return err
			}
		}
		out = append(out, m)
		state[name] = 2
		for _, d := range m.post {
			if err := visit(d, false); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range wanted {
		if err := visit(plain(name), strict); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Modules are the archive's members for the modules: the files by name, and the order to load them in.
func moduleEntries(dir string, wanted []string) ([]entry, error) {
	t, err := scan(dir)
	if err != nil {
		return nil, err
	}
	strict := len(wanted) > 0
	if !strict {
		wanted = Defaults()
	}
	mods, err := t.resolve(wanted, strict)
	if err != nil {
		return nil, err
	}
	var order strings.Builder
	for _, m := range mods {
		order.WriteString(m.name + ".ko\n")
	}
	mods = slices.Clone(mods)
	sort.Slice(mods, func(i, j int) bool { return mods[i].name < mods[j].name })
	var out []entry
	for _, m := range mods {
		out = append(out, entry{name: "modules/" + m.name + ".ko", mode: typeFile | 0o644, data: m.data})
	}
	return append(out, entry{name: "modules/order", mode: typeFile | 0o644, data: []byte(order.String())}), nil
}
