package image

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// Command is `farrier-ramdisk image`. It returns the exit status: 0 built, 1 failure, 2 wrong flags.
func Command(args []string, out, errOut io.Writer) int {
	fs := flag.NewFlagSet("farrier-ramdisk image", flag.ContinueOnError)
	fs.SetOutput(errOut)
	initPath := fs.String("init", "/proc/self/exe", "the farrier-ramdisk binary that becomes /init")
	modules := fs.String("modules", "", "directory lib/modules/VERSION of the kernel to be booted, or none")
	target := fs.String("out", "", "file to write")
	var names []string
	fs.Func("module", "a module to put in, with what it needs; repeat; default: common disk and network drivers", func(v string) error {
		names = append(names, v)
		return nil
	})
	files := map[string]string{}
	fs.Func("file", "NAME=FILE, a file to put in under that name, such as lib/firmware/bnx2x/NAME for a module that loads it; repeat", func(v string) error {
		name, path, ok := strings.Cut(v, "=")
		if !ok || path == "" {
			return fmt.Errorf("%q is not NAME=FILE", v)
		}
		files[name] = path
		return nil
	})
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0 // it has printed the flags
	} else if err != nil {
		return 2
	}
	if *target == "" || *modules == "" || fs.NArg() > 0 {
		fmt.Fprintln(errOut, "farrier-ramdisk image: --modules DIR|none and --out FILE are needed")
		return 2
	}
	if *modules == "none" {
		*modules = ""
	}
	absent, err := Build(*target, Source{Init: *initPath, Modules: *modules, Names: names, Files: files})
	if err != nil {
		fmt.Fprintln(errOut, "farrier-ramdisk image:", err)
		return 1
	}
	if info, err := os.Stat(*target); err == nil {
		fmt.Fprintf(out, "%s: %d bytes\n", *target, info.Size())
	}
	if len(absent) > 0 {
		fmt.Fprintf(out, "not in %s, so machines that need them will not show their disks or networks: %s\n", *modules, strings.Join(absent, " "))
	}
	return 0
}
