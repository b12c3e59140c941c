package image

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

// module makes the smallest ELF file with a .modinfo section.
func module(t *testing.T, modinfo string) []byte {
	t.Helper()
	names := "\x00.modinfo\x00.shstrtab\x00"
	info := strings.ReplaceAll(modinfo, ";", "\x00") + "\x00"
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	le := binary.LittleEndian
	put := func(v any) { _ = binary.Write(&b, le, v) }
	shoff := uint64(64 + len(info) + len(names))
	put([]uint16{1, 62})
	put(uint32(1))
	put([]uint64{0, 0, shoff})
	put(uint32(0))
	put([]uint16{64, 0, 0, 64, 3, 2})
	b.WriteString(info)
	b.WriteString(names)
	section := func(name uint32, kind uint32, off, size uint64) {
		put([]uint32{name, kind})
		put([]uint64{0, 0, off, size})
		put([]uint32{0, 0})
		put([]uint64{1, 0})
	}
	section(0, 0, 0, 0)
	section(1, 1, 64, uint64(len(info)))
	section(10, 3, uint64(64+len(info)), uint64(len(names)))
	return b.Bytes()
}

func modules(t *testing.T, dir string) string {
	t.Helper()
	for name, info := range map[string]string{
		"drivers/virtio-net.ko": "depends=net_failover,virtio_ring", "net_failover.ko": "depends=failover;softdep=pre: extra post: later",
		"failover.ko": "depends=", "virtio_ring.ko": "depends=virtio", "virtio.ko": "license=GPL", "extra.ko": "depends=", "later.ko": "depends=",
		"broken.ko": "depends=gone", "usesbuiltin.ko": "depends=crc32",
	} {
		path := filepath.Join(dir, "kernel", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, module(t, info), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/lib/crc32.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func names(ms []Module) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

func TestModulesComeInAnOrderThatLoads(t *testing.T) {
	dir := modules(t, t.TempDir())
	got, _, err := Resolve(dir, []string{"virtio_net", "usesbuiltin", "crc32"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := "extra failover net_failover virtio virtio_ring virtio_net usesbuiltin"; names(got) != want {
		t.Errorf("order %q, want %q", names(got), want)
	}
	if _, _, err := Resolve(dir, []string{"nowhere"}, false); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing module: %v", err)
	}
	if got, absent, err := Resolve(dir, []string{"nowhere", "virtio", "crc32"}, true); err != nil || names(got) != "virtio" || strings.Join(absent, " ") != "nowhere" {
		t.Errorf("optional: %q, absent %q, %v", names(got), absent, err)
	}
	if _, _, err := Resolve(dir, []string{"broken"}, true); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing dependency: %v", err)
	}
	if _, _, err := Resolve(t.TempDir(), nil, true); !fault.Is(err, fault.NotFound) {
		t.Errorf("a directory without modules: %v", err)
	}
}

func TestRamdiskIsTheSameBytesInAnyDirectory(t *testing.T) {
	var built [2][]byte
	for i := range built {
		dir := t.TempDir()
		program := filepath.Join(dir, "farrier-ramdisk")
		if err := os.WriteFile(program, []byte("#!program"), 0o700+os.FileMode(i)); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "ramdisk.gz")
		if _, err := Build(out, Source{Init: program, Modules: modules(t, filepath.Join(dir, "m")), Names: []string{"virtio_net"},
			Files: map[string]string{"lib/firmware/bnx2x/a.fw": program, "lib/firmware/b.fw": program}}); err != nil {
			t.Fatal(err)
		}
		var err error
		if built[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Fatal("two builds differ")
	}
	entries := unpack(t, built[0])
	if string(entries["init"]) != "#!program" {
		t.Errorf("init is %q", entries["init"])
	}
	if got := string(entries[OrderFile]); got != "extra.ko\nfailover.ko\nnet_failover.ko\nvirtio.ko\nvirtio_ring.ko\nvirtio_net.ko\n" {
		t.Errorf("order file %q", got)
	}
	if string(entries["lib/firmware/bnx2x/a.fw"]) != "#!program" || string(entries["lib/firmware/b.fw"]) != "#!program" {
		t.Error("firmware is missing")
	}
	if _, ok := entries["dev/console"]; !ok {
		t.Error("dev/console is missing: the first lines of /init would be lost")
	}
}

func unpack(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw)%512 != 0 {
		t.Errorf("length %d is not padded", len(raw))
	}
	out := map[string][]byte{}
	field := func(h []byte, i int) int {
		v, err := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return int(v)
	}
	align := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; ; {
		h := raw[at:]
		if string(h[:6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		size, nameSize := field(h, 6), field(h, 11)
		name := string(h[110 : 110+nameSize-1])
		if name == "TRAILER!!!" {
			return out
		}
		body := at + align(110+nameSize)
		out[name] = raw[body : body+size]
		at = body + align(size)
	}
}

func TestCommandRefusesMissingFlags(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := Command([]string{"--out", "x"}, &out, &errOut); code != 2 || !strings.Contains(errOut.String(), "--modules") {
		t.Errorf("code %d, %q", code, errOut.String())
	}
}

// A kernel without a driver makes a ramdisk that sees no disk on some machines: whoever builds it is told.
func TestDriversThatTheKernelLacksAreNamed(t *testing.T) {
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	args := []string{"--init", os.Args[0], "--modules", modules(t, filepath.Join(dir, "m")), "--out", filepath.Join(dir, "ramdisk")}
	if code := Command(args, &out, &errOut); code != 0 {
		t.Fatalf("code %d, %s", code, errOut.String())
	}
	_, absent, _ := strings.Cut(out.String(), "\nnot in ")
	for _, name := range []string{"ahci", "vmd", "aacraid", "mptsas", "mptspi", "mpi3mr"} {
		if !slices.Contains(strings.Fields(absent), name) {
			t.Errorf("%s is not named in %q", name, out.String())
		}
	}
	if slices.Contains(strings.Fields(absent), "virtio_net") {
		t.Errorf("virtio_net is there: %q", out.String())
	}
}

func TestFilesStayInTheRamdisk(t *testing.T) {
	for _, file := range []string{"../x=" + os.Args[0], "/etc/x=" + os.Args[0], ".=" + os.Args[0], "x", "x=", "x=/nowhere"} {
		var out, errOut bytes.Buffer
		if code := Command([]string{"--init", os.Args[0], "--modules", "none", "--out", filepath.Join(t.TempDir(), "r"), "--file", file}, &out, &errOut); code == 0 {
			t.Errorf("--file %s was taken", file)
		}
	}
}
