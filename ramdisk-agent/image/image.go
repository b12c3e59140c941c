package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"github.com/farrier-project/farrier/pkg/fault"
)

const maxInit = 256 << 20 // bytes of the binary

// Config says what goes into a ramdisk.
type Config struct {
	Init    []byte   // the binary
	Modules string   // directory of one kernel's modules; empty: none
	Wanted  []string // modules by name; empty: Defaults, as far as they are there
}

// Build makes the archive.
func Build(cfg Config) ([]byte, error) {
	if !bytes.HasPrefix(cfg.Init, []byte("\x7fELF")) {
		return nil, fault.New(fault.Invalid, "build ramdisk", "the init is not a program for Linux (no ELF)").
			WithHelp("build it by: CGO_ENABLED=0 go build ./ramdisk-agent")
	}
	entries := []entry{{name: ".", mode: typeDir | 0o755}}
	for _, d := range []string{"dev", "etc", "modules", "proc", "run", "sys", "tmp"} {
		entries = append(entries, entry{name: d, mode: typeDir | 0o755})
	}
	entries = append(entries,
		entry{name: "dev/console", mode: typeChar | 0o600, major: 5, minor: 1},
		entry{name: "dev/null", mode: typeChar | 0o666, major: 1, minor: 3},
		entry{name: "init", mode: typeFile | 0o755, data: cfg.Init})
	if cfg.Modules != "" {
		mods, err := moduleEntries(cfg.Modules, cfg.Wanted)
		if err != nil {
			return nil, err
		}
		entries = append(entries, mods...)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.DefaultCompression) // its header has no name, no date, and "unknown" for the system
	if err != nil {
		return nil, fault.Wrap("build ramdisk", err)
	}
	if err := errors.Join(writeCPIO(z, entries), z.Close()); err != nil {
		return nil, fault.Wrap("build ramdisk", err)
	}
	return out.Bytes(), nil
}

// names collects a flag that may come several times.
type names []string

func (n *names) String() string { return fmt.Sprint(*n) }

func (n *names) Set(s string) error {
	*n = append(*n, s)
	return nil
}

// Command is the subcommand image. It answers the exit code.
func Command(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("farrier-ramdisk image", flag.ContinueOnError)
	f.SetOutput(stderr)
	init := f.String("init", "", "the farrier-ramdisk binary that becomes /init; default: this one")
	dir := f.String("modules", "", "directory of one kernel's modules (lib/modules/VERSION), or none")
	out := f.String("out", "", "file to write")
	var wanted names
	f.Var(&wanted, "module", "module to put in, with what it needs; may be repeated; default: a set for common servers and QEMU")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if *out == "" || *dir == "" || f.NArg() > 0 {
		fmt.Fprintln(stderr, "farrier-ramdisk image: --modules DIR|none and --out FILE are needed")
		return 2
	}
	sum, size, err := command(*init, *dir, *out, wanted)
	if err != nil {
		fmt.Fprintln(stderr, "farrier-ramdisk image:", err)
		var fe *fault.Error
		if errors.As(err, &fe) && fe.Help != "" {
			fmt.Fprintln(stderr, "  "+fe.Help)
		}
		return 1
	}
	fmt.Fprintf(stdout, "%s  %d bytes  sha256 %x\n", *out, size, sum)
	return 0
}

func command(init, dir, out string, wanted []string) (sum [32]byte, size int, err error) {
	if init == "" {
		if init, err = os.Executable(); err != nil {
			return sum, 0, fault.New(fault.NotFound, "find this program", "%w", err)
		}
	}
	st, err := os.Stat(init)
	if err != nil {
		return sum, 0, fault.New(fault.NotFound, "read init", "%w", err)
	}
	if st.Size() > maxInit {
		return sum, 0, fault.New(fault.TooLarge, "read init", "more than %d bytes", maxInit)
	}
	cfg := Config{Wanted: wanted}
	if cfg.Init, err = os.ReadFile(init); err != nil {
		return sum, 0, fault.New(fault.NotFound, "read init", "%w", err)
	}
	if dir != "none" {
		cfg.Modules = dir
	}
	b, err := Build(cfg)
	if err != nil {
		return sum, 0, err
	}
	return sha256.Sum256(b), len(b), replace(out, b)
}

// replace writes the file beside its place first: nobody is served half of it.
func replace(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ramdisk-*")
	if err != nil {
		return fault.New(fault.Denied, "write ramdisk", "%w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fault.New(fault.Denied, "write ramdisk", "%w", err)
	}
	return nil
}
