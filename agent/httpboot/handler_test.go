package httpboot

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
)

const bootID = "0123456789abcdef0123456789abcdef"

type fixedClock time.Duration

func (c fixedClock) Now() time.Time          { return time.Unix(0, 0) }
func (c fixedClock) Boottime() time.Duration { return time.Duration(c) }

func newHandler(t *testing.T, edit func(*Config)) *Handler {
	t.Helper()
	dir := t.TempDir()
	kernel, ramdisk := filepath.Join(dir, "k"), filepath.Join(dir, "r")
	if err := os.WriteFile(kernel, []byte("KERNEL 0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ramdisk, []byte("RAMDISK"), 0o600); err != nil {
		t.Fatal(err)
	}
	tab := bootenv.New()
	err := tab.Put(bootenv.Machine{Node: "web-1", Epoch: 1,
		Ports: []bootenv.Port{{MAC: bootenv.MAC{0x52, 0x54, 0, 0, 0, 1}, PXE: true}, {MAC: bootenv.MAC{0x52, 0x54, 0, 0, 0, 2}}},
		Boot:  &bootenv.Attempt{ID: bootID, Secret: "feed", Expires: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Table: tab, HTTP: "http://10.77.0.1:8080", Kernel: kernel, Ramdisk: ramdisk, Clock: fixedClock(0),
		Programs: map[string][]byte{"snponly.efi": []byte("PROGRAM")},
		Agents:   func() []boot.Agent { return []boot.Agent{{URL: "https://10.77.0.1:8443", Pin: "ab"}} }}
	if edit != nil {
		edit(&cfg)
	}
	return New(cfg)
}

func do(h http.Handler, method, path, ranges string) (int, string, http.Header) {
	r := httptest.NewRequest(method, path, nil)
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

func TestServes(t *testing.T) {
	h := newHandler(t, func(c *Config) {
		c.Images = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "IMAGE") })
	})
	base := "/boot/" + bootID
	tests := []struct {
		method, path, ranges string
		code                 int
		body                 string // contained
	}{
		{"GET", base + "/kernel", "", 200, "KERNEL 0123456789"},
		{"GET", base + "/kernel", "bytes=7-9", 206, "012"},
		{"GET", base + "/kernel", "bytes=-3", 206, "789"},
		{"GET", base + "/kernel", "bytes=100-", 416, ""},
		{"HEAD", base + "/kernel", "", 200, ""},
		{"GET", base + "/ramdisk", "", 200, "RAMDISK"},
		{"GET", base + "/ipxe", "", 200, "BOOTIF=01-52-54-00-00-00-01"},
		{"GET", base + "/ipxe?mac=52-54-00-00-00-02", "", 200, "BOOTIF=01-52-54-00-00-00-02"},
		{"GET", base + "/ipxe?mac=52:54:00:00:00:01", "", 200, "farrier.secret=feed farrier.agents=https://10.77.0.1:8443 farrier.pins=ab"},
		{"GET", base + "/ipxe?mac=52-54-00-00-00-03", "", 403, "may not use"},
		{"GET", base + "/ipxe?mac=nonsense", "", 403, "may not use"},
		{"GET", "/boot/ffff/kernel", "", 404, "no such boot attempt"},
		{"GET", "/boot/ffff/ipxe", "", 404, "no such boot attempt"},
		{"GET", base + "/shadow", "", 404, ""},
		{"GET", base + "/../../etc/passwd", "", 307, ""}, // the mux cleans the path; nothing is there
		{"GET", "/etc/passwd", "", 404, ""},
		{"POST", base + "/kernel", "", 405, ""},
		{"GET", "/boot/unknown/ipxe?mac=52-54-00-00-00-09", "", 200, "52-54-00-00-00-09 is not known"},
		{"GET", "/boot/unknown/ipxe?mac=x%0ashell", "", 400, "mac="},
		{"GET", "/programs/snponly.efi", "", 200, "PROGRAM"},
		{"GET", "/programs/other.efi", "", 404, "no such boot program"},
		{"GET", "/images/abc", "", 200, "IMAGE"},
	}
	for _, tt := range tests {
		code, body, header := do(h, tt.method, tt.path, tt.ranges)
		if code != tt.code || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s %s: %d %q, want %d with %q", tt.method, tt.path, tt.ranges, code, body, tt.code, tt.body)
		}
		if tt.code == 200 && tt.path == base+"/kernel" && header.Get("Content-Length") != "17" {
			t.Errorf("%s %s: length %q", tt.method, tt.path, header.Get("Content-Length"))
		}
	}
}

func TestOverIsGone(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"expired": func(c *Config) { c.Clock = fixedClock(time.Minute) },
		"closed":  func(c *Config) { c.Table.CloseBoot(bootID) },
	} {
		h := newHandler(t, edit)
		for _, what := range []string{"/ipxe", "/kernel", "/ramdisk"} {
			if code, body, _ := do(h, "GET", "/boot/"+bootID+what, ""); code != http.StatusGone || !strings.Contains(body, "over") {
				t.Errorf("%s%s: %d %q, want 410", name, what, code, body)
			}
		}
	}
}

func TestClaimedAttemptWaits(t *testing.T) {
	var asked []string
	h := newHandler(t, func(c *Config) {
		c.Table.Claim(bootID)
		c.Clock = fixedClock(time.Hour) // claimed attempts do not run out
		c.OnBoot = func(id string) { asked = append(asked, id) }
	})
	code, body, _ := do(h, "GET", "/boot/"+bootID+"/ipxe", "")
	if code != 200 || !strings.Contains(body, "has been used") || strings.Contains(body, "feed") {
		t.Errorf("%d %q", code, body)
	}
	if len(asked) != 1 || asked[0] != bootID {
		t.Errorf("reported %v", asked)
	}
}

// TestMachineWaitedForEver: a machine that was told to wait did not hear that its boot attempt was over.
func TestMachineWaitedForEver(t *testing.T) {
	var asked []string
	h := newHandler(t, func(c *Config) {
		c.Table.Claim(bootID)
		c.OnBoot = func(id string) { asked = append(asked, id) }
	})
	_, body, _ := do(h, "GET", "/boot/"+bootID+"/ipxe?mac=52-54-00-00-00-01", "")
	_, rest, ok := strings.Cut(body, "chain --replace --autofree http://10.77.0.1:8080")
	if !ok {
		t.Fatalf("the script does not ask again:\n%s", body)
	}
	path, _, _ := strings.Cut(rest, " ")
	if code, again, _ := do(h, "GET", path, ""); code != 200 || again != body {
		t.Errorf("while the attempt is open: %d %q", code, again)
	}
	if len(asked) != 1 {
		t.Errorf("asking again was taken for %d restarts of the machine", len(asked)-1)
	}
	next := bootenv.Machine{Node: "web-1", Epoch: 1, Ports: []bootenv.Port{{MAC: bootenv.MAC{0x52, 0x54, 0, 0, 0, 1}, PXE: true}},
		Boot: &bootenv.Attempt{ID: strings.Repeat("f", 32), Secret: "feed", Expires: time.Minute}}
	if err := h.cfg.Table.Put(next); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := do(h, "GET", path, ""); code != http.StatusGone {
		t.Errorf("when the next attempt is open: %d, want 410: the machine waits to be restarted", code)
	}
	h.cfg.Table.CloseBoot(next.Boot.ID)
	if code, leave, _ := do(h, "GET", path, ""); code != 200 || leave != boot.LeaveScript() {
		t.Errorf("when it is over: %d %q, want the script that leaves", code, leave)
	}
	h.cfg.Table = bootenv.New()
	if code, _, _ := do(h, "GET", path, ""); code != http.StatusNotFound {
		t.Errorf("when the node is another agent's: %d, want 404: the machine restarts in the end", code)
	}
}

func TestMissingFile(t *testing.T) {
	h := newHandler(t, func(c *Config) { c.Kernel += ".gone"; c.Ramdisk = filepath.Dir(c.Ramdisk) })
	for _, what := range []string{"/kernel", "/ramdisk"} {
		if code, body, _ := do(h, "GET", "/boot/"+bootID+what, ""); code != http.StatusServiceUnavailable || strings.Contains(body, "/tmp") {
			t.Errorf("%s: %d %q, want 503 without the path", what, code, body)
		}
	}
}

func TestServeStops(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- newHandler(t, nil).Serve(ctx, ln) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/boot/" + bootID + "/ramdisk")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(b) != "RAMDISK" {
		t.Errorf("%q, %v", b, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
