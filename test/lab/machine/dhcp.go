package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/pin/tftp/v3"
)

const (
	dhcpTries   = 4 // of 0.5, 1, 2 and 4 s: firmware PXE waits 4, 8, 16 and 32
	firstWait   = 500 * time.Millisecond
	offerWindow = 100 * time.Millisecond // how long an offer without a boot file waits for a better one
	maxProgram  = 4 << 20
)

// lease is what DHCP gave: an address that is ours already, and a boot file or none.
type lease struct {
	server string // address of the agent
	file   string // TFTP name or URL; "" when there is nothing to boot
	tftp   uint16
}

// relayOptions is option 82 with the relay's source port (RFC 8357): replies come to our own port, not to 67.
func relayOptions(port int) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{19, 2, byte(port >> 8), byte(port)})
}

// dhcp asks all helpers for an address and boot options, as firmware PXE or as iPXE. It runs the whole exchange with
// the agent that offers something to boot, or, failing that, with the first that answered.
func (m *Machine) dhcp(ctx context.Context, asIPXE bool) (lease, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.cfg.IP, 0)))
	if err != nil {
		return lease{}, fmt.Errorf("open DHCP port: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	discover, err := m.request(conn, asIPXE, dhcpv4.MessageTypeDiscover, nil)
	if err != nil {
		return lease{}, err
	}
	wait := firstWait
	for range dhcpTries {
		offer, err := m.exchange(ctx, conn, discover, wait, dhcpv4.MessageTypeOffer)
		if ctx.Err() != nil {
			return lease{}, ctx.Err()
		}
		wait *= 2
		if err != nil {
			continue
		}
		m.bump(func(c *Counters) { c.DHCPOffers++ })
		request, err := m.request(conn, asIPXE, dhcpv4.MessageTypeRequest, offer)
		if err != nil {
			return lease{}, err
		}
		ack, err := m.exchange(ctx, conn, request, time.Second, dhcpv4.MessageTypeAck)
		if err != nil {
			continue
		}
		return m.leaseOf(ack), nil
	}
	return lease{}, errors.New("no DHCP server answers for this machine")
}

// BootFile asks the helpers as iPXE does, without starting anything, and returns what they say to boot.
func (m *Machine) BootFile(ctx context.Context) (string, error) {
	l, err := m.dhcp(ctx, true)
	return l.file, err
}

func (m *Machine) leaseOf(ack *dhcpv4.DHCPv4) lease {
	l := lease{server: ack.ServerIPAddr.String(), file: string(bytes.TrimRight(ack.Options.Get(dhcpv4.OptionBootfileName), "\x00"))}
	if l.file == "" {
		l.file = ack.BootFileName
	}
	id, _ := netip.AddrFromSlice(ack.ServerIdentifier().To4())
	for _, h := range m.cfg.Helpers {
		if h.DHCP.Addr() == id {
			l.tftp = h.TFTP
		}
	}
	return l
}

func (m *Machine) request(conn *net.UDPConn, asIPXE bool, typ dhcpv4.MessageType, offer *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(typ),
		dhcpv4.WithHwAddr(m.cfg.MAC),
		dhcpv4.WithGatewayIP(m.cfg.IP.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
		dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(97), m.uuidOption()),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionBootfileName, dhcpv4.OptionTFTPServerName),
		dhcpv4.WithOption(relayOptions(conn.LocalAddr().(*net.UDPAddr).Port)),
	}
	if asIPXE {
		mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")),
			dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(175), []byte{0xb0, 1, 0}))
	}
	if offer != nil {
		mods = append(mods, dhcpv4.WithTransactionID(offer.TransactionID),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
	}
	return dhcpv4.New(mods...)
}

// uuidOption is option 97: type 0 and the SMBIOS UUID, its first three fields little-endian as firmware sends them.
func (m *Machine) uuidOption() []byte {
	raw, err := hex.DecodeString(strings.ReplaceAll(m.cfg.UUID, "-", ""))
	if err != nil || len(raw) != 16 {
		return make([]byte, 17)
	}
	out := append([]byte{0}, raw...)
	binary.LittleEndian.PutUint32(out[1:], binary.BigEndian.Uint32(raw))
	binary.LittleEndian.PutUint16(out[5:], binary.BigEndian.Uint16(raw[4:]))
	binary.LittleEndian.PutUint16(out[7:], binary.BigEndian.Uint16(raw[6:]))
	return out
}

// exchange sends to every helper and takes the best answer of the type wanted.
func (m *Machine) exchange(ctx context.Context, conn *net.UDPConn, p *dhcpv4.DHCPv4, wait time.Duration, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	packet := p.ToBytes()
	for _, h := range m.cfg.Helpers {
		// An agent that is down refuses on loopback: the others may answer.
		_, _ = conn.WriteToUDPAddrPort(packet, h.DHCP)
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	var best *dhcpv4.DHCPv4
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		n, err := conn.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			break
		}
		r, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || r.TransactionID != p.TransactionID || !bytes.Equal(r.ClientHWAddr, m.cfg.MAC) {
			continue
		}
		switch {
		case r.MessageType() == dhcpv4.MessageTypeNak:
			return nil, errors.New("the agent refuses the address")
		case r.MessageType() != want:
			continue
		case r.BootFileName != "" || r.Options.Has(dhcpv4.OptionBootfileName) || want == dhcpv4.MessageTypeAck:
			return r, nil
		case best == nil:
			best = r
			_ = conn.SetReadDeadline(time.Now().Add(min(wait, offerWindow)))
		}
	}
	if best == nil {
		return nil, errors.New("no answer")
	}
	return best, nil
}

// tftp fetches the boot program as firmware does and throws it away: nothing here executes it.
func (m *Machine) tftp(l lease) (int64, error) {
	c, err := tftp.NewClient(net.JoinHostPort(l.server, fmt.Sprint(l.tftp)))
	if err != nil {
		return 0, err
	}
	if err := c.SetLocalAddr(m.cfg.IP.String()); err != nil {
		return 0, err
	}
	c.SetTimeout(time.Second)
	c.SetRetries(3)
	c.SetBlockSize(1456)
	c.RequestTSize(true)
	r, err := c.Receive(l.file, "octet")
	if err != nil {
		return 0, err
	}
	var sink counter
	if _, err := r.WriteTo(&sink); err != nil {
		return 0, err
	}
	return int64(sink), nil
}

// counter counts what is written to it, up to a bound.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	if *c += counter(len(p)); *c > maxProgram {
		return 0, errors.New("the boot program is too large")
	}
	return len(p), nil
}
