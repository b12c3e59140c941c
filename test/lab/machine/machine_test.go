package machine

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/test/lab"
)

func newMachine(t *testing.T, helpers ...Helper) *Machine {
	t.Helper()
	m, err := New(Config{
		Dir: t.TempDir(), Name: "m1", IP: netip.MustParseAddr("127.77.9.9"), MAC: []byte{0x52, 0x54, 0, 0, 0, 1},
		UUID: "9f3f1c4e-0000-4000-8000-000000000001", Serial: "SN1", DiskBytes: 8 << 20, Helpers: helpers,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// TestScript runs the script that the agent serves: a kernel and a ramdisk are loaded, then it boots.
func TestScript(t *testing.T) {
	fail := 1 // how often the kernel is not there
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot/{id}/kernel", func(w http.ResponseWriter, _ *http.Request) {
		if fail > 0 {
			fail--
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "kernel")
	})
	mux.HandleFunc("GET /boot/{id}/ramdisk", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ramdisk") })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	text, err := boot.Launch{HTTP: srv.URL, BootID: "ab", Secret: "cd", MAC: [6]byte{0x52}}.Script()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	s := &ipxe{m: m, client: m.httpClient(), files: map[string][]byte{}}
	o, err := s.run(t.Context(), text, func() outcome { return powerOff })
	if err != nil || o != powerOff {
		t.Fatalf("run = %v, %v", o, err)
	}
	if string(s.files["kernel"]) != "kernel" || string(s.files["initrd"]) != "ramdisk" || !strings.Contains(s.cmdline, "farrier.boot=ab") {
		t.Errorf("loaded %q with command line %q", s.files, s.cmdline)
	}
	if s.vars["attempt"] != 1 {
		t.Errorf("it tried again %d times, want 1", s.vars["attempt"])
	}
}

func TestScriptWaits(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	s := &ipxe{m: m, client: m.httpClient(), files: map[string][]byte{}}
	text, err := boot.WaitScript("http://127.0.0.1:1", "ab", [6]byte{0x52})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(ctx, text, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the wait script: %v, want it to wait until the power goes", err)
	}
	for _, bad := range []string{"", "#!ipxe\nfrob\n", "#!ipxe\ngoto nowhere\n", "#!ipxe\n:a\ngoto a\n", "#!ipxe\nboot\n", "#!ipxe\necho end\n"} {
		if _, err := s.run(t.Context(), bad, nil); err == nil {
			t.Errorf("script %q: no error", bad)
		}
	}
}

func entry(name, body string) string {
	f := make([]string, 13)
	for i := range f {
		f[i] = "00000000"
	}
	f[6], f[11] = fmt.Sprintf("%08x", len(body)), fmt.Sprintf("%08x", len(name)+1)
	head := "070701" + strings.Join(f, "") + name + "\x00"
	return head + strings.Repeat("\x00", pad(len(head))) + body + strings.Repeat("\x00", pad(len(body)))
}

func TestFindInit(t *testing.T) {
	pack := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		return b.Bytes()
	}
	good := pack(entry("dev", "") + entry("init", "program") + entry("TRAILER!!!", ""))
	if got, err := findInit(good); err != nil || string(got) != "program" {
		t.Errorf("findInit = %q, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"not gzip": []byte("hello"), "cut": good[:len(good)-6], "no init": pack(entry("TRAILER!!!", "")),
		"no trailer": pack(entry("init", "x")), "not cpio": pack(strings.Repeat("x", 200)),
		"huge": pack("070701" + strings.Repeat("ffffffff", 13)),
	} {
		if _, err := findInit(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestPower follows a machine with an empty disk and nobody on its network.
func TestPower(t *testing.T) {
	events := make(chan string, 100)
	m := newMachine(t)
	m.cfg.OnEvent = func(e Event) { events <- e.What }
	if err := m.SetBoot(lab.Boot{Target: lab.BootDisk}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.PowerOn(); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.WaitState(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	if err := m.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitState(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if err := m.Reset(); err == nil {
		t.Error("a machine that is off was reset")
	}
	close(events)
	var got []string
	for e := range events {
		got = append(got, e)
	}
	if want := []string{"power on", "dead", "reset", "dead", "power off"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if c := m.Counters(); c.Starts != 2 || c.Dead != 2 || c.PowerOffs != 1 || m.Powered() {
		t.Errorf("counters %+v, powered %v", c, m.Powered())
	}
}

func TestOneShotOverride(t *testing.T) {
	m := newMachine(t)
	_ = m.SetBoot(lab.Boot{Target: lab.BootPXE, Once: true, Mode: "Legacy"})
	if b := m.takeBoot(); b.Target != lab.BootPXE {
		t.Errorf("the first start boots %+v", b)
	}
	if b := m.takeBoot(); b.Target != lab.BootNone || b.Mode != "Legacy" {
		t.Errorf("the second start boots %+v", b)
	}
}
