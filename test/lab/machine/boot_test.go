package machine

import (
	"bytes"
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/dhcp"
	"github.com/farrier-project/farrier/agent/httpboot"
	pool "github.com/farrier-project/farrier/agent/lease"
	"github.com/farrier-project/farrier/agent/tftp"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/test/lab"
)

// playInit is /init of the ramdisk: it ends as its command line says, or waits for the power cord.
const playInit = `#!/bin/sh
case "$2" in
*play=off*) exit 0 ;;
*play=crash*) exit 1 ;;
*play=reboot*) exit 3 ;;
esac
read -r cord
exit 4
`

// rack is one agent's boot services, with the machine assigned to it.
type rack struct {
	table   *bootenv.Table
	helpers []Helper
}

func newRack(t *testing.T, play string) *rack {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	table := bootenv.New()
	dir := t.TempDir()
	kernel, ramdisk := filepath.Join(dir, "kernel"), filepath.Join(dir, "ramdisk")
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	_, _ = z.Write([]byte(entry("init", playInit) + entry("TRAILER!!!", "")))
	_ = z.Close()
	if os.WriteFile(kernel, []byte("kernel"), 0o644) != nil || os.WriteFile(ramdisk, archive.Bytes(), 0o644) != nil {
		t.Fatal("cannot write boot files")
	}
	programs := map[string][]byte{boot.ProgramBIOS: bytes.Repeat([]byte("x"), 3000)}
	extra, err := boot.ParseArgs([]string{"play=" + play})
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	handler = httpboot.New(httpboot.Config{Table: table, HTTP: srv.URL, Kernel: kernel, Ramdisk: ramdisk, Programs: programs, Extra: extra,
		Agents: func() []boot.Agent { return []boot.Agent{{URL: "https://127.0.0.1:1", Pin: "ab"}} }})
	ip := netip.MustParseAddr("127.77.255.9")
	d, err := dhcp.New(dhcp.Config{Table: table, Server: ip, Rack: boot.Rack{HTTP: srv.URL},
		Subnets: []pool.Subnet{{Prefix: netip.MustParsePrefix("127.77.0.0/16")}}})
	if err != nil {
		t.Fatal(err)
	}
	dc, err := dhcp.Listen(ctx, "", ip.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	tc, err := tftp.Listen(ctx, ip.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = d.Serve(ctx, dc) })
	wg.Go(func() { _ = tftp.New(tftp.Config{Files: programs}).Serve(ctx, tc) })
	return &rack{table: table, helpers: []Helper{
		{DHCP: netip.MustParseAddrPort("127.77.255.8:1"), TFTP: 1}, // an agent that is down
		{DHCP: dc.LocalAddr().(*net.UDPAddr).AddrPort(), TFTP: tc.LocalAddr().(*net.UDPAddr).AddrPort().Port()},
	}}
}

// assign gives the machine to the rack, with a boot attempt if id is not empty.
func (r *rack) assign(t *testing.T, m *Machine, id string) {
	t.Helper()
	n := bootenv.Machine{Node: "n1", Epoch: 1, Ports: []bootenv.Port{{MAC: bootenv.MAC(m.cfg.MAC), IP: m.cfg.IP, PXE: true}}}
	if id != "" {
		n.Boot = &bootenv.Attempt{ID: id, Secret: "5ec2e7", Expires: clock.System{}.Boottime() + time.Minute}
	}
	if err := r.table.Put(n); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkBoot boots through the agent's own DHCP, TFTP and HTTP.
func TestNetworkBoot(t *testing.T) {
	for _, c := range []struct {
		play   string
		want   string // state after the boot
		events []string
	}{
		{"wait", "ramdisk", []string{"power on", "tftp", "script", "kernel", "initrd", "ramdisk"}},
		{"off", "off", []string{"power on", "tftp", "script", "kernel", "initrd", "ramdisk", "power off"}},
		{"crash", "dead", []string{"power on", "tftp", "script", "kernel", "initrd", "ramdisk", "dead"}},
		{"reboot", "dead", []string{"power on", "tftp", "script", "kernel", "initrd", "ramdisk", "reboot", "dead"}}, // then the empty disk
	} {
		t.Run(c.play, func(t *testing.T) {
			r := newRack(t, c.play)
			m := newMachine(t, r.helpers...)
			var mu sync.Mutex
			var got []string
			m.cfg.OnEvent = func(e Event) { mu.Lock(); defer mu.Unlock(); got = append(got, e.What) }
			r.assign(t, m, "b001")
			_ = m.SetBoot(lab.Boot{Target: lab.BootPXE, Once: true})
			if err := m.PowerOn(); err != nil {
				t.Fatal(err)
			}
			if err := m.WaitState(t.Context(), c.want); err != nil {
				t.Fatal(err)
			}
			if c.want == "ramdisk" && m.PID() == 0 {
				t.Error("no ramdisk runs")
			}
			if m.Counters().NetBoots != 1 {
				t.Errorf("counters %+v, want one network boot", m.Counters())
			}
			_ = m.Close()
			mu.Lock()
			defer mu.Unlock()
			if len(got) < len(c.events) || !slices.Equal(got[:len(c.events)], c.events) {
				t.Errorf("events %q, want %q", got, c.events)
			}
			if log, err := os.ReadFile(m.ConsolePath()); err != nil || strings.Contains(string(log), "5ec2e7") {
				t.Errorf("the console shows the boot secret: %s, %v", log, err)
			}
		})
	}
}

// TestNoBootAttempt goes on to the disk, as firmware does that gets an address and no boot file.
func TestNoBootAttempt(t *testing.T) {
	r := newRack(t, "wait")
	m := newMachine(t, r.helpers...)
	r.assign(t, m, "")
	_ = m.SetBoot(lab.Boot{Target: lab.BootPXE})
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitState(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	if c := m.Counters(); c.DHCPOffers != 1 || c.NetBoots != 0 {
		t.Errorf("counters %+v, want one offer and no boot", c)
	}
}

// TestSoftOff ends what runs without a hard power off.
func TestSoftOff(t *testing.T) {
	r := newRack(t, "wait")
	m := newMachine(t, r.helpers...)
	r.assign(t, m, "b002")
	_ = m.SetBoot(lab.Boot{Target: lab.BootPXE})
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitState(t.Context(), "ramdisk"); err != nil {
		t.Fatal(err)
	}
	if err := m.SoftOff(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitState(t.Context(), "off"); err != nil {
		t.Fatal(err)
	}
}
