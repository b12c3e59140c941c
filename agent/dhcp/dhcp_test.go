package dhcp

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/lease"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	bootID  = "0123456789abcdef0123456789abcdef"
	baseURL = "http://127.77.0.1:8080"
)

var (
	knownMAC   = bootenv.MAC{0x52, 0x54, 0, 0, 0, 1}
	unknownMAC = bootenv.MAC{0x52, 0x54, 0, 0, 0, 9}
	relayIP    = netip.MustParseAddr("127.77.0.50")
	fixedIP    = netip.MustParseAddr("127.77.0.101")
)

// fakeClock is moved by the test.
type fakeClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *fakeClock) Now() time.Time { return time.Unix(0, 0) }
func (c *fakeClock) Boottime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

func subnets() []lease.Subnet {
	return []lease.Subnet{{Prefix: netip.MustParsePrefix("127.77.0.0/24"), Router: netip.MustParseAddr("127.77.0.1"),
		DNS: []netip.Addr{netip.MustParseAddr("127.77.0.2")}, Lease: time.Hour,
		Pool: []lease.Range{{First: netip.MustParseAddr("127.77.0.200"), Last: netip.MustParseAddr("127.77.0.201")}}}}
}

func newServer(t testing.TB, edit func(*Config)) *Server {
	t.Helper()
	tab := bootenv.New()
	err := tab.Put(bootenv.Machine{Node: "web-1", Epoch: 1, Ports: []bootenv.Port{{MAC: knownMAC, IP: fixedIP, PXE: true}},
		Boot: &bootenv.Attempt{ID: bootID, Secret: "aa", Expires: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Table: tab, Subnets: subnets(), Rack: boot.Rack{Unknown: boot.Address, HTTP: baseURL},
		Server: netip.MustParseAddr("127.77.0.1"), Clock: &fakeClock{}}
	if edit != nil {
		edit(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Complete()
	return s
}

// message makes a relayed request; mods change it.
func message(typ dhcpv4.MessageType, mac bootenv.MAC, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(typ), dhcpv4.WithHwAddr(mac[:]), dhcpv4.WithRelay(relayIP.AsSlice()),
		dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}),
	}, mods...)...)
	if err != nil {
		panic(err)
	}
	return m
}

func class(text string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptClassIdentifier(text)) }

func arch(a iana.Arch) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptClientArch(a)) }

func want(ip netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip.AsSlice()))
}

func toServer(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(ip).To4()))
}

// ask runs one packet through the handler.
func ask(t testing.TB, s *Server, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, netip.AddrPort) {
	t.Helper()
	b, to := s.answer(m.ToBytes(), netip.MustParseAddrPort("127.77.0.50:6767"), s.cfg.Clock.Boottime())
	if b == nil {
		return nil, to
	}
	r, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatalf("the answer does not parse: %v", err)
	}
	return r, to
}

// TestDORAOverLoopback is a relayed client on real sockets, as the machines of the lab are.
func TestDORAOverLoopback(t *testing.T) {
	conn, err := Listen(t.Context(), "", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: relayIP.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := newServer(t, func(c *Config) { c.ReplyPort = uint16(client.LocalAddr().(*net.UDPAddr).Port) })
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, conn) }()

	exchange := func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		t.Helper()
		if _, err := client.WriteTo(m.ToBytes(), conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := client.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2048)
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		r, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	rai := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 3, 'e', 't', 'h'}))
	rom := []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001"), arch(iana.INTEL_X86PC), rai}
	offer := exchange(message(dhcpv4.MessageTypeDiscover, knownMAC, rom...))
	if offer.MessageType() != dhcpv4.MessageTypeOffer || !offer.YourIPAddr.Equal(fixedIP.AsSlice()) {
		t.Fatalf("offer: %s", offer.Summary())
	}
	if got := offer.Options.Get(dhcpv4.OptionRelayAgentInformation); !bytes.Equal(got, []byte{1, 3, 'e', 't', 'h'}) {
		t.Errorf("option 82 came back as %v", got)
	}
	ack := exchange(message(dhcpv4.MessageTypeRequest, knownMAC, append(rom, want(fixedIP), toServer("127.77.0.1"))...))
	if ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(fixedIP.AsSlice()) || ack.BootFileName != "undionly.kpxe" {
		t.Errorf("ack: %s", ack.Summary())
	}
	if ack.IPAddressLeaseTime(0) != time.Hour || !bytes.Equal(ack.SubnetMask(), net.CIDRMask(24, 32)) || len(ack.Router()) != 1 || len(ack.DNS()) != 1 {
		t.Errorf("network options: %s", ack.Summary())
	}
	nak := exchange(message(dhcpv4.MessageTypeRequest, knownMAC, want(netip.MustParseAddr("127.77.0.77")), toServer("127.77.0.1")))
	if nak.MessageType() != dhcpv4.MessageTypeNak || !nak.YourIPAddr.Equal(net.IPv4zero) {
		t.Errorf("a foreign address: %s", nak.Summary())
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestBootOptionsByClient(t *testing.T) {
	script := baseURL + "/boot/" + bootID + "/ipxe?mac=52-54-00-00-00-01"
	tests := []struct {
		name  string
		mods  []dhcpv4.Modifier
		file  string
		class string
		next  bool // next server and option 66
		quick bool // option 175: no proxyDHCP
	}{
		{"BIOS", []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001"), arch(iana.INTEL_X86PC)}, "undionly.kpxe", "", true, false},
		{"BIOS without option 93", []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001")}, "undionly.kpxe", "", true, false},
		{"UEFI 7", []dhcpv4.Modifier{class("PXEClient:Arch:00007:UNDI:003000"), arch(iana.EFI_BC)}, "snponly.efi", "", true, false},
		{"UEFI 9", []dhcpv4.Modifier{class("PXEClient"), arch(iana.EFI_X86_64)}, "snponly.efi", "", true, false},
		{"UEFI without option 93", []dhcpv4.Modifier{class("PXEClient:Arch:00007:UNDI:003000")}, "snponly.efi", "", true, false},
		{"HTTPClient", []dhcpv4.Modifier{class("HTTPClient:Arch:00016:UNDI:003000"), arch(iana.EFI_X86_64_HTTP)}, baseURL + "/programs/snponly.efi", "HTTPClient", false, false},
		{"iPXE, plain user class", []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001"), dhcpv4.WithUserClass("iPXE", false)}, script, "", true, true},
		{"iPXE, RFC 3004", []dhcpv4.Modifier{class("PXEClient:Arch:00007:UNDI:003010"), dhcpv4.WithUserClass("iPXE", true)}, script, "", true, true},
		{"system", nil, "", "", false, false},
	}
	for _, tt := range tests {
		s := newServer(t, nil)
		uuid := dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(97), []byte{0, 1, 2, 3})
		r, _ := ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC, append(tt.mods, uuid)...))
		if r == nil {
			t.Errorf("%s: no answer", tt.name)
			continue
		}
		if got := string(r.Options.Get(dhcpv4.OptionBootfileName)); got != tt.file || r.BootFileName != tt.file {
			t.Errorf("%s: boot file %q and %q, want %q", tt.name, got, r.BootFileName, tt.file)
		}
		if got := r.ClassIdentifier(); got != tt.class {
			t.Errorf("%s: vendor class %q, want %q", tt.name, got, tt.class)
		}
		if got := string(r.Options.Get(dhcpv4.OptionTFTPServerName)) == "127.77.0.1"; got != tt.next {
			t.Errorf("%s: option 66 is %v, want %v", tt.name, got, tt.next)
		}
		if got := r.ServerIPAddr.Equal(net.IPv4(127, 77, 0, 1)); got != (tt.file != "") {
			t.Errorf("%s: next server %s", tt.name, r.ServerIPAddr)
		}
		if got := bytes.Equal(r.Options.Get(dhcpv4.GenericOptionCode(175)), []byte{176, 1, 1}); got != tt.quick {
			t.Errorf("%s: option 175 is %v, want %v", tt.name, got, tt.quick)
		}
		if got := r.Options.Get(dhcpv4.GenericOptionCode(97)); !bytes.Equal(got, []byte{0, 1, 2, 3}) {
			t.Errorf("%s: option 97 came back as %v", tt.name, got)
		}
	}
}

func TestUnknownMachines(t *testing.T) {
	rom := []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001"), arch(iana.INTEL_X86PC)}
	tests := []struct {
		policy boot.Policy
		answer bool
		file   string
	}{{boot.Ignore, false, ""}, {boot.Address, true, ""}, {boot.Halt, true, "undionly.kpxe"}}
	for _, tt := range tests {
		s := newServer(t, func(c *Config) { c.Rack.Unknown = tt.policy })
		r, _ := ask(t, s, message(dhcpv4.MessageTypeDiscover, unknownMAC, rom...))
		if (r != nil) != tt.answer {
			t.Errorf("%s: answered %v", tt.policy, r != nil)
			continue
		}
		if r != nil && (r.BootFileName != tt.file || r.YourIPAddr.Equal(fixedIP.AsSlice())) {
			t.Errorf("%s: %s", tt.policy, r.Summary())
		}
	}
}

func TestPoolExhaustionDeclineRelease(t *testing.T) {
	clk := &fakeClock{}
	s := newServer(t, func(c *Config) { c.Clock = clk })
	machine := func(n byte) bootenv.MAC { return bootenv.MAC{2, 0, 0, 0, 0, n} }
	lease := func(n byte) netip.Addr {
		t.Helper()
		offer, _ := ask(t, s, message(dhcpv4.MessageTypeDiscover, machine(n)))
		if offer == nil {
			return netip.Addr{}
		}
		got := ip4(offer.YourIPAddr)
		ack, _ := ask(t, s, message(dhcpv4.MessageTypeRequest, machine(n), want(got), toServer("127.77.0.1")))
		if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck {
			t.Fatalf("machine %d: no ack for %s", n, got)
		}
		return got
	}
	first, second := lease(1), lease(2)
	if first == second || !first.IsValid() || !second.IsValid() {
		t.Fatalf("leases %s and %s", first, second)
	}
	if got := lease(3); got.IsValid() {
		t.Errorf("the pool of two gave a third, %s", got)
	}
	if r, _ := ask(t, s, message(dhcpv4.MessageTypeDecline, machine(1), want(first), toServer("127.77.0.1"))); r != nil {
		t.Error("a decline was answered")
	}
	if got := lease(3); got.IsValid() {
		t.Errorf("a declined address was given again: %s", got)
	}
	if r, _ := ask(t, s, message(dhcpv4.MessageTypeRelease, machine(2), dhcpv4.WithClientIP(second.AsSlice()))); r != nil {
		t.Error("a release was answered")
	}
	if got := lease(3); got != second {
		t.Errorf("the released address was not given: %s", got)
	}
	clk.advance(11 * time.Minute)
	if got := lease(4); got != first {
		t.Errorf("after quarantine: %s, want %s", got, first)
	}
	if got := len(s.Leases()); got != 2 {
		t.Errorf("%d leases to journal, want 2", got)
	}
}

func TestRequestsOfOthers(t *testing.T) {
	s := newServer(t, nil)
	tests := []struct {
		name string
		m    *dhcpv4.DHCPv4
		want dhcpv4.MessageType // None: silence
	}{
		{"chose another server", message(dhcpv4.MessageTypeRequest, knownMAC, want(fixedIP), toServer("192.0.2.1")), dhcpv4.MessageTypeNone},
		{"known machine starts with a foreign address", message(dhcpv4.MessageTypeRequest, knownMAC, want(netip.MustParseAddr("192.0.2.9"))), dhcpv4.MessageTypeNak},
		{"unknown machine starts with a foreign address", message(dhcpv4.MessageTypeRequest, unknownMAC, want(netip.MustParseAddr("192.0.2.9"))), dhcpv4.MessageTypeNone},
		{"known machine renews", message(dhcpv4.MessageTypeRequest, knownMAC, dhcpv4.WithClientIP(fixedIP.AsSlice())), dhcpv4.MessageTypeAck},
		{"inform", message(dhcpv4.MessageTypeInform, knownMAC, dhcpv4.WithClientIP(fixedIP.AsSlice())), dhcpv4.MessageTypeAck},
		{"inform without an address", message(dhcpv4.MessageTypeInform, knownMAC), dhcpv4.MessageTypeNone},
		{"a link without a subnet", message(dhcpv4.MessageTypeDiscover, knownMAC, dhcpv4.WithRelay(net.IPv4(192, 0, 2, 1))), dhcpv4.MessageTypeNone},
		{"an offer", message(dhcpv4.MessageTypeOffer, knownMAC), dhcpv4.MessageTypeNone},
	}
	for _, tt := range tests {
		r, _ := ask(t, s, tt.m)
		got := dhcpv4.MessageTypeNone
		if r != nil {
			got = r.MessageType()
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if tt.name == "inform" && r != nil && (!r.YourIPAddr.Equal(net.IPv4zero) || r.Options.Has(dhcpv4.OptionIPAddressLeaseTime)) {
			t.Errorf("inform: %s", r.Summary())
		}
	}
}

func TestDestinations(t *testing.T) {
	sourcePort := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{19, 0}))
	noRelay := dhcpv4.WithRelay(net.IPv4zero)
	notRelayed := func(m *dhcpv4.DHCPv4) { noRelay(m); m.HopCount = 0 }
	tests := []struct {
		name string
		port uint16
		m    *dhcpv4.DHCPv4
		to   string
	}{
		{"relay", 0, message(dhcpv4.MessageTypeDiscover, knownMAC), "127.77.0.50:67"},
		{"relay on a port of its own", 6700, message(dhcpv4.MessageTypeDiscover, knownMAC), "127.77.0.50:6700"},
		{"relay by RFC 8357", 0, message(dhcpv4.MessageTypeDiscover, knownMAC, sourcePort), "127.77.0.50:6767"},
		{"broadcast", 0, message(dhcpv4.MessageTypeDiscover, knownMAC, notRelayed), "255.255.255.255:68"},
		{"renewal", 0, message(dhcpv4.MessageTypeRequest, knownMAC, notRelayed, dhcpv4.WithClientIP(fixedIP.AsSlice())), "127.77.0.101:68"},
		{"refused renewal", 0, message(dhcpv4.MessageTypeRequest, knownMAC, notRelayed, dhcpv4.WithClientIP(net.IPv4(127, 77, 0, 9))), "255.255.255.255:68"},
	}
	for _, tt := range tests {
		s := newServer(t, func(c *Config) { c.ReplyPort = tt.port })
		if _, to := ask(t, s, tt.m); to.String() != tt.to {
			t.Errorf("%s: goes to %s, want %s", tt.name, to, tt.to)
		}
	}
}

func TestLinkSelection(t *testing.T) {
	s := newServer(t, nil)
	sel := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{5, 4, 127, 77, 0, 0}))
	r, to := ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC, dhcpv4.WithRelay(net.IPv4(192, 0, 2, 1)), sel))
	if r == nil || !r.YourIPAddr.Equal(fixedIP.AsSlice()) || to.String() != "192.0.2.1:67" {
		t.Errorf("answer %v to %s", r, to)
	}
}

func TestClaimedAttemptIsReported(t *testing.T) {
	var asked []string
	s := newServer(t, func(c *Config) { c.OnBoot = func(id string) { asked = append(asked, id) } })
	rom := []dhcpv4.Modifier{class("PXEClient:Arch:00007:UNDI:003000"), arch(iana.EFI_BC)}
	ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC, rom...))
	if len(asked) != 0 {
		t.Fatalf("the first boot was reported: %v", asked)
	}
	s.cfg.Table.Claim(bootID)
	ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC)) // the ramdisk's own DHCP client
	if len(asked) != 0 {
		t.Fatalf("the ramdisk's DHCP was reported: %v", asked)
	}
	r, _ := ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC, rom...))
	if len(asked) != 1 || asked[0] != bootID {
		t.Errorf("reported %v", asked)
	}
	if r == nil || r.BootFileName != "snponly.efi" {
		t.Error("the machine must be led to the script that waits, not to its disk")
	}
}

func TestProxy(t *testing.T) {
	s := newServer(t, func(c *Config) { c.Proxy = true })
	rom := []dhcpv4.Modifier{class("PXEClient:Arch:00007:UNDI:003000"), arch(iana.EFI_BC)}
	offer, _ := ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC, rom...))
	if offer == nil || !offer.YourIPAddr.Equal(net.IPv4zero) || offer.ClassIdentifier() != "PXEClient" || offer.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
		t.Fatalf("offer: %v", offer)
	}
	if r, _ := ask(t, s, message(dhcpv4.MessageTypeDiscover, knownMAC)); r != nil {
		t.Error("a system that asks for an address was answered")
	}
	if r, _ := ask(t, s, message(dhcpv4.MessageTypeRequest, knownMAC, append(rom, want(fixedIP))...)); r != nil {
		t.Error("a request for an address was answered")
	}
	from := netip.MustParseAddrPort("127.77.0.101:4011")
	req := message(dhcpv4.MessageTypeRequest, knownMAC, append(rom, dhcpv4.WithClientIP(fixedIP.AsSlice()), dhcpv4.WithRelay(net.IPv4zero))...)
	b, to := s.answerBootServer(req.ToBytes(), from, 0)
	if b == nil || to != from {
		t.Fatalf("port 4011 answers %d bytes to %s", len(b), to)
	}
	ack, err := dhcpv4.FromBytes(b)
	if err != nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.BootFileName != "snponly.efi" || ack.ClassIdentifier() != "PXEClient" {
		t.Errorf("ack: %v, %v", ack, err)
	}
	for name, m := range map[string]*dhcpv4.DHCPv4{
		"unknown machine": message(dhcpv4.MessageTypeRequest, unknownMAC, rom...),
		"plain client":    message(dhcpv4.MessageTypeRequest, knownMAC),
		"discover":        message(dhcpv4.MessageTypeDiscover, knownMAC, rom...),
	} {
		if b, _ := s.answerBootServer(m.ToBytes(), from, 0); b != nil {
			t.Errorf("port 4011 answered: %s", name)
		}
	}
}

func TestBadPackets(t *testing.T) {
	s := newServer(t, nil)
	good := message(dhcpv4.MessageTypeDiscover, knownMAC).ToBytes()
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	tests := map[string][]byte{
		"empty":           {},
		"short":           good[:100],
		"no cookie":       change(func(b []byte) []byte { b[236] = 0; return b }),
		"a reply":         change(func(b []byte) []byte { b[0] = 2; return b }),
		"infiniband":      change(func(b []byte) []byte { b[1] = 32; return b }),
		"long address":    change(func(b []byte) []byte { b[2] = 16; return b }),
		"group address":   change(func(b []byte) []byte { b[28] |= 1; return b }),
		"cut option":      change(func(b []byte) []byte { return append(b[:240], 53, 200, 1) }),
		"no message type": change(func(b []byte) []byte { return append(b[:240], 255) }),
		"too large":       append(bytes.Clone(good), make([]byte, 1500)...),
		"too many options": change(func(b []byte) []byte {
			b = append(b[:240], 53, 1, 1)
			for i := range 70 {
				b = append(b, byte(100+i), 1, 0)
			}
			return append(b, 255)
		}),
	}
	for name, b := range tests {
		if r, _ := s.answer(b, netip.MustParseAddrPort("127.0.0.1:68"), 0); r != nil {
			t.Errorf("%s: answered", name)
		}
	}
	if r, _ := s.answer(good, netip.MustParseAddrPort("127.0.0.1:68"), 0); r == nil {
		t.Error("the packet that the bad ones are made of is not answered either")
	}
}

func TestTokenBucket(t *testing.T) {
	clk := &fakeClock{}
	s := newServer(t, func(c *Config) { c.Clock, c.Rate, c.Burst = clk, 10, 3 })
	count := func() (n int) {
		for range 10 {
			if s.allow(make([]byte, minPacket), clk.Boottime()) {
				n++
			}
		}
		return n
	}
	if got := count(); got != 3 {
		t.Errorf("%d packets of the burst, want 3", got)
	}
	clk.advance(100 * time.Millisecond)
	if got := count(); got != 1 {
		t.Errorf("%d packets after a tenth of a second, want 1", got)
	}
	clk.advance(24 * time.Hour)
	if got := count(); got != 3 {
		t.Errorf("%d packets after a day, want the burst of 3", got)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{Table: bootenv.New(), Rack: boot.Rack{HTTP: baseURL}, Server: netip.MustParseAddr("127.0.0.1"), Subnets: subnets()}
	for name, edit := range map[string]func(*Config){
		"no table":    func(c *Config) { c.Table = nil },
		"no server":   func(c *Config) { c.Server = netip.Addr{} },
		"IPv6 server": func(c *Config) { c.Server = netip.MustParseAddr("::1") },
		"no URL":      func(c *Config) { c.Rack.HTTP = "" },
		"bad subnet":  func(c *Config) { c.Subnets = []lease.Subnet{{}} },
	} {
		c := good
		edit(&c)
		if _, err := New(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

// TestSolicitations runs the responder on a pair of ordinary sockets in place of raw ICMPv6.
func TestSolicitations(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- answerSolicitations(ctx, server, client.LocalAddr(), nil) }()
	for _, b := range [][]byte{{134, 0, 0, 0, 0, 0, 0, 0}, {133}, {133, 1, 0, 0, 0, 0, 0, 0}, {133, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := client.WriteTo(b, server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, _, err := client.ReadFrom(buf)
	if err != nil || n != 16 || buf[0] != 134 || buf[4] != 64 || !bytes.Equal(buf[5:16], make([]byte, 11)) {
		t.Errorf("advertisement % x, %v", buf[:n], err)
	}
	cancel()
	server.Close()
	if err := <-served; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// FuzzAnswer feeds the handler packets of any content: it must neither panic nor answer with more than it may.
func FuzzAnswer(f *testing.F) {
	f.Add(message(dhcpv4.MessageTypeDiscover, knownMAC, class("PXEClient:Arch:00000:UNDI:002001")).ToBytes())
	f.Add(message(dhcpv4.MessageTypeRequest, knownMAC, want(fixedIP), toServer("127.77.0.1")).ToBytes())
	f.Add(message(dhcpv4.MessageTypeDecline, unknownMAC, want(fixedIP)).ToBytes())
	f.Add(message(dhcpv4.MessageTypeInform, knownMAC, dhcpv4.WithUserClass("iPXE", true)).ToBytes())
	s := newServer(f, func(c *Config) { c.Rack.Unknown = boot.Halt })
	f.Fuzz(func(t *testing.T, packet []byte) {
		from := netip.MustParseAddrPort("127.0.0.1:68")
		for _, answer := range []answerFunc{s.answer, s.answerBootServer} {
			b, to := answer(packet, from, 0)
			if b == nil {
				continue
			}
			if len(b) > maxPacket || !to.IsValid() {
				t.Errorf("%d bytes to %s", len(b), to)
			}
			if _, err := dhcpv4.FromBytes(b); err != nil {
				t.Errorf("the answer does not parse: %v", err)
			}
		}
	})
}

func BenchmarkDiscover(b *testing.B) {
	s := newServer(b, nil)
	p := message(dhcpv4.MessageTypeDiscover, knownMAC, class("PXEClient:Arch:00007:UNDI:003000"), arch(iana.EFI_BC)).ToBytes()
	from := netip.MustParseAddrPort("127.77.0.50:67")
	b.ReportAllocs()
	for b.Loop() {
		if r, _ := s.answer(p, from, 0); r == nil {
			b.Fatal("no answer")
		}
	}
}
