package dhcp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
)

// Options that the library has no name for, or parses into more than is needed.
const (
	optUUID          = dhcpv4.GenericOptionCode(97)  // RFC 4578: echoed
	optIPXE          = dhcpv4.GenericOptionCode(175) // iPXE's encapsulated options
	ipxeNoProxyDHCP  = 176                           // sub-option: 1 = do not wait for a proxyDHCP offer
	subLinkSelection = 5                             // RFC 3527, of option 82
	subSourcePort    = 19                            // RFC 8357, of option 82
)

// query is a request, parsed and checked.
type query struct {
	*dhcpv4.DHCPv4
	typ    dhcpv4.MessageType
	mac    bootenv.MAC
	client boot.Client
	arch   boot.Arch
	relay  netip.Addr // giaddr; the zero Addr: not relayed
	ciaddr netip.Addr // the zero Addr: none
	want   netip.Addr // requested address or ciaddr
	server netip.Addr // server identifier; the zero Addr: none
	from   netip.AddrPort
}

// parse reads a packet; ok is false for what is not a DHCP request of an Ethernet machine.
func parse(packet []byte, from netip.AddrPort) (q query, ok bool) {
	if len(packet) > maxPacket {
		return q, false
	}
	m, err := dhcpv4.FromBytes(packet)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 || len(m.Options) > maxOptions {
		return q, false
	}
	q = query{DHCPv4: m, typ: m.MessageType(), mac: bootenv.MAC(m.ClientHWAddr), from: from}
	if q.mac[0]&1 != 0 || q.mac == (bootenv.MAC{}) { // no machine sends from a group address
		return q, false
	}
	q.relay, q.ciaddr = ip4(m.GatewayIPAddr), ip4(m.ClientIPAddr)
	q.want, q.server = ip4(m.Options.Get(dhcpv4.OptionRequestedIPAddress)), ip4(m.Options.Get(dhcpv4.OptionServerIdentifier))
	if !q.want.IsValid() {
		q.want = q.ciaddr
	}
	q.client, q.arch = clientOf(m)
	return q, true
}

func ip4(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if a = a.Unmap(); !ok || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// clientOf tells what asks. iPXE says so in its user class, once plain and once as RFC 3004 has it.
func clientOf(m *dhcpv4.DHCPv4) (boot.Client, boot.Arch) {
	class := string(m.Options.Get(dhcpv4.OptionClassIdentifier))
	arch := archOf(m.Options.Get(dhcpv4.OptionClientSystemArchitectureType), class)
	if hasUserClass(m.Options.Get(dhcpv4.OptionUserClassInformation), "iPXE") {
		return boot.IPXE, arch
	}
	switch {
	case strings.HasPrefix(class, "HTTPClient"):
		return boot.HTTP, arch
	case strings.HasPrefix(class, "PXEClient"):
		return boot.PXE, arch
	}
	return boot.Plain, arch
}

func hasUserClass(option []byte, want string) bool {
	if string(option) == want {
		return true
	}
	for len(option) > 0 {
		n := int(option[0])
		if n == 0 || n >= len(option) {
			return false
		}
		if string(option[1:1+n]) == want {
			return true
		}
		option = option[1+n:]
	}
	return false
}

// archOf reads option 93, and else the vendor class: "PXEClient:Arch:00007:UNDI:003016".
func archOf(option []byte, class string) boot.Arch {
	if len(option) >= 2 {
		return boot.Arch(binary.BigEndian.Uint16(option))
	}
	_, rest, ok := strings.Cut(class, ":Arch:")
	if !ok || len(rest) < 5 {
		return boot.ArchBIOS
	}
	n, err := strconv.ParseUint(rest[:5], 10, 16)
	if err != nil {
		return boot.ArchBIOS
	}
	return boot.Arch(n)
}

// relayOption finds a sub-option of option 82.
func (q *query) relayOption(code byte) ([]byte, bool) {
	o := q.Options.Get(dhcpv4.OptionRelayAgentInformation)
	for len(o) >= 2 && int(o[1]) <= len(o)-2 {
		if o[0] == code {
			return o[2 : 2+o[1]], true
		}
		o = o[2+o[1]:]
	}
	return nil, false
}

// link is an address of the network that the machine is on.
func (q *query) link(own netip.Addr) netip.Addr {
	if b, ok := q.relayOption(subLinkSelection); ok && q.relay.IsValid() && len(b) == 4 {
		return ip4(b)
	}
	switch {
	case q.relay.IsValid():
		return q.relay
	case q.ciaddr.IsValid():
		return q.ciaddr // a renewal may come by unicast through a router
	}
	return own
}
