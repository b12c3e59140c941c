package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/config"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/uplink"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// joined is a data directory with the certificate of an agent.
func joined(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Data = t.TempDir()
	cfg.HTTP.Listen, cfg.Ramdisk.Listen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Coordinators = []string{"127.0.0.1:1"} // nobody: this rack is cut off
	cfg.Boot.Kernel, cfg.Boot.Ramdisk = filepath.Join(cfg.Data, "kernel"), filepath.Join(cfg.Data, "ramdisk")
	for _, path := range []string{cfg.Boot.Kernel, cfg.Boot.Ramdisk} {
		if err := os.WriteFile(path, []byte("bytes of "+filepath.Base(path)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := identity.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	store, err := identity.NewStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	peer := identity.Peer{Cluster: "test", Role: identity.RoleAgent, Name: "rack1-a", Group: "rack1"}
	if err := store.Certify(ca, peer, nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	csr, err := store.RamdiskCSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.IssueIntermediate(csr, peer, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutRamdiskCA(chain); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func env() Env {
	return Env{Version: "test", Log: slog.New(slog.DiscardHandler), Clock: clock.System{}, Stdin: bytes.NewReader(nil), Out: io.Discard}
}

// up composes an agent on the directory and serves until stop.
func up(t *testing.T, cfg config.Config) (a *agent, stop func()) {
	t.Helper()
	return upWith(t, cfg, slog.New(slog.DiscardHandler))
}

func upWith(t *testing.T, cfg config.Config, log *slog.Logger) (a *agent, stop func()) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if err := settle(&cfg, id); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(filepath.Join(cfg.Data, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	ls, err := listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := env()
	e.Log = log
	if a, err = compose(cfg, e, id, j, ls); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx) }()
	return a, func() {
		t.Helper()
		cancel()
		if err := errors.Join(<-done, j.Close()); err != nil {
			t.Error(err)
		}
		ls.close()
		a.images.Close()
	}
}

func get(t *testing.T, a *agent, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + a.ls.at.HTTP + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// TestCutOffRackServesBootsAfterARestart: what was authorised is served again without the coordinators, until it
// is torn down; and no credential is in any file of the journal.
func TestCutOffRackServesBootsAfterARestart(t *testing.T) {
	const password = "correct-horse-battery-staple"
	cfg := joined(t)
	a, stop := up(t, cfg)
	n := &task.Node{
		ID: "0b0b0b0b-0000-4000-8000-000000000001", Driver: "redfish", Epoch: 3, Token: 7,
		DriverInfo: map[string]string{"redfish_address": "https://192.0.2.1", "redfish_username": "root", "redfish_password": password},
		Ports:      []task.Port{{Address: "52:54:00:00:00:01", PXEEnabled: true}},
		Boot:       &task.Boot{ID: "b00700000000000000000000000000b1", Secret: "5ec2e7", Flow: 1, Expires: clock.System{}.Boottime() + time.Hour},
	}
	a.tasks.Assign(n)
	if weak, err := (boots{a}).Prepare(t.Context(), n.ID, n.Boot.ID, bmc.Identity{}); err != nil || !weak {
		t.Fatal(err)
	}
	if _, err := (boots{a}).Prepare(t.Context(), n.ID, "another", bmc.Identity{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an unknown boot attempt is prepared: %v", err)
	}
	stop()

	a, stop = up(t, cfg)
	if code, body := get(t, a, "/boot/"+n.Boot.ID+"/kernel"); code != http.StatusOK || body != "bytes of kernel" {
		t.Errorf("after a restart the kernel is %d %q", code, body)
	}
	if m, ok := a.table.ByNode(n.ID); !ok || m.Epoch != 3 || m.Boot == nil || m.Boot.Secret != "5ec2e7" {
		t.Errorf("after a restart the table holds %+v", m)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Data, "journal", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no journal", err)
	}
	for _, path := range files {
		if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte(password)) {
			t.Errorf("%s: %v, or it holds a BMC password", path, err)
		}
	}
	a.tasks.Assign(n) // the leader is back and says the same
	if err := (boots{a}).Teardown(t.Context(), n.ID, ""); err != nil {
		t.Fatal(err)
	}
	a.tasks.Assign(n) // and again, before it knows of the teardown
	if _, standing := a.table.ByBoot(n.Boot.ID, 0); standing == bootenv.Open {
		t.Error("what was torn down is served")
	}
	if code, _ := get(t, a, "/boot/"+n.Boot.ID+"/kernel"); code != http.StatusGone {
		t.Errorf("after the teardown the kernel is %d", code)
	}
	stop()

	a, stop = up(t, cfg)
	defer stop()
	if a.table.Len() != 0 {
		t.Error("what was torn down came back with a restart")
	}
}

// TestRestartedAgentForgetsBootsThatMoved: an agent that was dead while its node went to another served the old boot
// attempt for ever after its restart, and the machine that the new owner started got its answers.
func TestRestartedAgentForgetsBootsThatMoved(t *testing.T) {
	cfg := joined(t)
	for _, claimed := range []string{"", "abcd"} {
		a, stop := up(t, cfg)
		n := &task.Node{ID: "0b0b0b0b-0000-4000-8000-000000000002", Driver: "redfish", Epoch: 3, Token: 7,
			Ports: []task.Port{{Address: "52:54:00:00:00:02", PXEEnabled: true}},
			Boot:  &task.Boot{ID: "b00700000000000000000000000000b2", Secret: "5ec2e7", Flow: 1, KeyHash: claimed, Expires: clock.System{}.Boottime() + time.Hour}}
		a.tasks.Assign(n)
		stop()

		a, stop = up(t, cfg)
		if got, want := a.table.Len(), map[string]int{"": 1, "abcd": 0}[claimed]; got != want {
			t.Errorf("claimed %q: while cut off %d machines are served instead of %d", claimed, got, want)
		}
		a.tasks.Handle(work.Greeted{}, work.Welcomed{Session: "s", TTL: 2 * time.Second}, work.Synced{})
		if a.table.Len() != 0 {
			t.Errorf("claimed %q: a node of another agent is served after Synced", claimed)
		}
		stop()

		a, stop = up(t, cfg)
		if a.table.Len() != 0 || len(a.saved) != 0 {
			t.Errorf("claimed %q: what was forgotten came back with a restart", claimed)
		}
		stop()
	}
}

func TestRunRefusesWhatIsNotItsOwn(t *testing.T) {
	cfg := joined(t)
	cfg.Name = "rack1-b"
	if err := Run(t.Context(), cfg, env()); !fault.Is(err, fault.Invalid) || ExitCode(err) != ExitUsage {
		t.Errorf("another's certificate: %v", err)
	}
	cfg.Name = ""
	cfg.Drivers = []string{"abacus"}
	if err := Run(t.Context(), cfg, env()); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown hardware type: %v", err)
	}
	cfg.Data = t.TempDir()
	if err := Run(t.Context(), cfg, env()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a directory without a certificate: %v", err)
	}
	if err := Join(t.Context(), cfg, env(), JoinOptions{Token: "nonsense"}); err == nil {
		t.Error("nonsense is a join token")
	}
	token := identity.NewJoinToken([32]byte{}, identity.RoleCoordinator, "c1", "", nil).Encode()
	if err := Join(t.Context(), cfg, env(), JoinOptions{Token: token}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a coordinator's token: %v", err)
	}
}

// TestProxyDHCPHadNoSecondPort: firmware that another server gave its address asks port 4011 for its boot program, where
// nobody listened.
func TestProxyDHCPHadNoSecondPort(t *testing.T) {
	cfg := joined(t)
	cfg.DHCP = config.DHCP{Listen: "127.0.0.1:0", Server: netip.MustParseAddr("127.0.0.1"), Proxy: true, ProxyListen: "127.0.0.1:0"}
	a, stop := up(t, cfg)
	defer stop()
	n := &task.Node{ID: "0b0b0b0b-0000-4000-8000-000000000001", Driver: "redfish", Epoch: 1, Token: 1,
		Ports: []task.Port{{Address: "52:54:00:00:00:01", PXEEnabled: true}},
		Boot:  &task.Boot{ID: "b00700000000000000000000000000b1", Secret: "5ec2e7", Flow: 1, Expires: clock.System{}.Boottime() + time.Hour}}
	a.tasks.Assign(n)
	if _, err := (boots{a}).Prepare(t.Context(), n.ID, n.Boot.ID, bmc.Identity{}); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", a.ls.at.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}),
		dhcpv4.WithClientIP(net.IPv4(127, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_BC)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(ask.ToBytes()); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	size, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	ack, err := dhcpv4.FromBytes(buf[:size])
	if err != nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.BootFileName == "" || !ack.YourIPAddr.Equal(net.IPv4zero) {
		t.Errorf("%v, %v", ack, err)
	}
}

// TestAJoinCutByALeaderChangeWasRefused: what may have been done was taken for an answer, and the other coordinators were
// not asked.
func TestAJoinCutByALeaderChangeWasRefused(t *testing.T) {
	told := func(kind string) error {
		ce := connect.NewError(connect.CodeUnknown, errors.New(kind))
		d, err := connect.NewErrorDetail(&farrierv1.ErrorDetail{Kind: kind, Message: kind})
		if err != nil {
			t.Fatal(err)
		}
		ce.AddDetail(d)
		return ce
	}
	for kind, want := range map[string]int{"unknown_outcome": 2, "unavailable": 2, "no_quorum": 2, "expired": 1} {
		asked := 0
		err := eachAddress(t.Context(), nil, []string{"c1", "c2"}, func(context.Context, farrierv1connect.JoinServiceClient) error {
			if asked++; asked == 1 {
				return told(kind)
			}
			return nil
		})
		if asked != want || (err == nil) != (want == 2) {
			t.Errorf("%s: %d asked, %v", kind, asked, err)
		}
	}
}

// TestRouterAdvertisementsAreOnByDefault: whoever followed the documents had none. What keeps the agent from it, here an
// interface that is gone, ends it only where the configuration insists.
func TestRouterAdvertisementsAreOnByDefault(t *testing.T) {
	a := &agent{env: env()}
	a.cfg.DHCP.Interface = "no-such-interface0"
	if err := a.advertise(t.Context(), false); err != nil {
		t.Errorf("by default: %v", err)
	}
	if err := a.advertise(t.Context(), true); !fault.Is(err, fault.Invalid) {
		t.Errorf("insisted on: %v", err)
	}
}

// TestUnknownMachinesBelongedToAnotherAgent: an agent took the machines of the others of its group for unknown ones.
func TestUnknownMachinesBelongedToAnotherAgent(t *testing.T) {
	cfg := joined(t)
	cfg.DHCP = config.DHCP{Listen: "127.0.0.1:0", Server: netip.MustParseAddr("127.0.0.1"), Proxy: true, ProxyListen: "127.0.0.1:0", Unknown: "halt"}
	a, stop := up(t, cfg)
	defer stop()
	known, unknown := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}
	a.tasks.Assign(&task.Node{ID: "0b0b0b0b-0000-4000-8000-000000000001", Driver: "redfish", Epoch: 1, Token: 1,
		Ports: []task.Port{{Address: known.String(), PXEEnabled: true}},
		Boot:  &task.Boot{ID: "b00700000000000000000000000000b1", Secret: "5ec2e7", Flow: 1, Expires: clock.System{}.Boottime() + time.Hour}})
	conn, err := net.Dial("udp", a.ls.at.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// first asks for both, the unknown machine first, and tells who is answered first.
	first := func() net.HardwareAddr {
		t.Helper()
		for _, mac := range []net.HardwareAddr{unknown, known} {
			ask, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(mac), dhcpv4.WithClientIP(net.IPv4(127, 0, 0, 1)),
				dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")), dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_BC)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(ask.ToBytes()); err != nil {
				t.Fatal(err)
			}
		}
		var who net.HardwareAddr
		for {
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1500)
			size, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			ack, err := dhcpv4.FromBytes(buf[:size])
			if err != nil {
				t.Fatal(err)
			}
			if who == nil {
				who = ack.ClientHWAddr
			}
			if ack.ClientHWAddr.String() == known.String() { // the last
				return who
			}
		}
	}
	if who := first(); who.String() != known.String() {
		t.Errorf("%s was answered before this agent's machines were known", who)
	}
	a.synced()
	if who := first(); who.String() != unknown.String() {
		t.Errorf("the unknown machine of a group of one agent was not answered")
	}
	a.groupChanged([]uplink.GroupAgent{a.self(), {Name: "other"}})
	a.groupChanged([]uplink.GroupAgent{a.self()}) // it dies: its machines come one by one
	if who := first(); who.String() != known.String() {
		t.Errorf("%s was answered, which may be another agent's", who)
	}
}
