package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/lease"
)

// reply makes the part that all answers share: what RFC 2131 table 3 copies, option 82 (RFC 3046 section 2.2) and the
// client's UUID (RFC 4578), which PXE firmware wants to see again.
func (s *Server) reply(q *query, typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: q.HWType, TransactionID: q.TransactionID, Flags: q.Flags,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero,
		GatewayIPAddr: q.GatewayIPAddr, ClientHWAddr: q.ClientHWAddr, Options: make(dhcpv4.Options, 16),
	}
	if typ == dhcpv4.MessageTypeAck {
		r.ClientIPAddr = q.ClientIPAddr
	}
	r.Options[uint8(dhcpv4.OptionDHCPMessageType)] = []byte{byte(typ)}
	r.Options[uint8(dhcpv4.OptionServerIdentifier)] = s.self
	for _, code := range []uint8{uint8(dhcpv4.OptionRelayAgentInformation), uint8(dhcpv4.OptionClientIdentifier), uint8(optUUID)} {
		if v, ok := q.Options[code]; ok {
			r.Options[code] = v
		}
	}
	return r
}

func (s *Server) lease(q *query, typ dhcpv4.MessageType, g lease.Grant, ans boot.Answer) *dhcpv4.DHCPv4 {
	r := s.reply(q, typ)
	r.YourIPAddr = g.IP.AsSlice()
	r.Options[uint8(dhcpv4.OptionIPAddressLeaseTime)] = seconds(g.For)
	r.Options[uint8(dhcpv4.OptionRenewTimeValue)] = seconds(g.For / leaseRenew)
	r.Options[uint8(dhcpv4.OptionRebindingTimeValue)] = seconds(g.For / 8 * 7)
	network(r, g.Subnet)
	bootOptions(r, q, ans, s.self)
	return r
}

func network(r *dhcpv4.DHCPv4, sub *lease.Subnet) {
	r.Options[uint8(dhcpv4.OptionSubnetMask)] = net.CIDRMask(sub.Prefix.Bits(), 32)
	if sub.Router.IsValid() {
		r.Options[uint8(dhcpv4.OptionRouter)] = sub.Router.AsSlice()
	}
	for _, a := range sub.DNS {
		r.Options[uint8(dhcpv4.OptionDomainNameServer)] = append(r.Options[uint8(dhcpv4.OptionDomainNameServer)], a.AsSlice()...)
	}
}

// bootOptions says what to load: in the BOOTP fields, which old ROMs read, and in options 66 and 67. The vendor class
// HTTPClient is what UEFI HTTP Boot knows its offer by (UEFI 2.10 section 24.7.3.1).
func bootOptions(r *dhcpv4.DHCPv4, q *query, ans boot.Answer, self net.IP) {
	if q.client == boot.IPXE || q.Options.Has(optIPXE) {
		r.Options[uint8(optIPXE)] = []byte{ipxeNoProxyDHCP, 1, 1} // saves iPXE a wait of 2 s
	}
	if ans.Serve != boot.Program && ans.Serve != boot.Script {
		return
	}
	r.ServerIPAddr = self
	r.Options[uint8(dhcpv4.OptionBootfileName)] = []byte(ans.File)
	if len(ans.File) < 128 {
		r.BootFileName = ans.File
	}
	if q.client == boot.HTTP {
		r.Options[uint8(dhcpv4.OptionClassIdentifier)] = []byte("HTTPClient")
		return
	}
	r.Options[uint8(dhcpv4.OptionTFTPServerName)] = []byte(self.String())
	r.ServerHostName = self.String()
}

// proxyOptions mark an answer that carries no address (PXE 2.1 section 2.4.6): vendor class PXEClient, and discovery
// control 8 in option 43, "use the boot file given, ask no further".
func proxyOptions(r *dhcpv4.DHCPv4, q *query) {
	if q.client == boot.HTTP {
		return
	}
	r.Options[uint8(dhcpv4.OptionClassIdentifier)] = []byte("PXEClient")
	r.Options[uint8(dhcpv4.OptionVendorSpecificInformation)] = []byte{6, 1, 8, 255}
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
}

// marshal writes the answer and chooses its destination (RFC 2131 section 4.1). Answers are some 400 bytes, below the
// 576 that every client takes.
func (s *Server) marshal(q *query, r *dhcpv4.DHCPv4) ([]byte, netip.AddrPort) {
	b := r.ToBytes()
	if len(b) > maxPacket {
		s.log.Warn("dhcp: answer too large", "mac", q.mac.String(), "bytes", len(b))
		return nil, netip.AddrPort{}
	}
	switch {
	case q.relay.IsValid():
		port := s.cfg.ReplyPort
		if _, ok := q.relayOption(subSourcePort); ok {
			port = q.from.Port()
		}
		return b, netip.AddrPortFrom(q.relay, port)
	case r.MessageType() != dhcpv4.MessageTypeNak && q.ciaddr.IsValid():
		return b, netip.AddrPortFrom(q.ciaddr, clientPort)
	default:
		return b, netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	}
}
