package dhcp

import (
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/lease"
	"github.com/farrier-project/farrier/pkg/fault"
)

// answer handles a packet of port 67. A nil reply is silence.
func (s *Server) answer(packet []byte, from netip.AddrPort, now time.Duration) ([]byte, netip.AddrPort) {
	q, ok := parse(packet, from)
	if !ok {
		return nil, netip.AddrPort{}
	}
	m, _ := s.cfg.Table.ByMAC(q.mac)
	ans := boot.Decide(s.rack(), boot.Request{MAC: q.mac, Client: q.client, Arch: q.arch}, m.Assignment(q.mac, now))
	var reply *dhcpv4.DHCPv4
	if s.cfg.Proxy {
		reply = s.proxyOffer(&q, ans)
	} else {
		reply = s.leaseReply(&q, m, ans, now)
	}
	if reply == nil {
		return nil, netip.AddrPort{}
	}
	s.noteBoot(&q, m)
	return s.marshal(&q, reply)
}

// leaseReply is nil where nothing is to be answered.
func (s *Server) leaseReply(q *query, m *bootenv.Machine, ans boot.Answer, now time.Duration) *dhcpv4.DHCPv4 {
	r := s.leaseRequest(q, m)
	switch {
	case s.hear(q, m, r, now), ans.Serve == boot.Nothing:
		return nil
	case q.typ == dhcpv4.MessageTypeDiscover:
		return s.discover(q, m, r, ans, now)
	case q.typ == dhcpv4.MessageTypeRequest:
		return s.request(q, m, r, ans, now)
	case q.typ == dhcpv4.MessageTypeInform:
		return s.inform(q, ans)
	}
	return nil
}

// hear takes in what asks for no answer of this server's, also from machines that it answers no more: they may still have
// an address of its pool. It tells whether q was that.
func (s *Server) hear(q *query, m *bootenv.Machine, r lease.Request, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case q.typ == dhcpv4.MessageTypeDecline:
		if changed := s.pool.Decline(q.mac, q.want, r.Fixed, now); !changed && m == nil {
			break // of another server's machine
		}
		s.log.Warn("dhcp: address declined: somebody else on the link uses it", "node", nodeName(m), "mac", q.mac.String(), "ip", q.want, "reserved", q.want == r.Fixed)
	case q.typ == dhcpv4.MessageTypeRelease:
		s.pool.Release(q.mac, q.ciaddr)
	case q.typ == dhcpv4.MessageTypeRequest && q.server.IsValid() && q.server != s.cfg.Server:
		s.pool.Elsewhere(q.mac, r.Link, q.want)
	default:
		return false
	}
	return true
}

// noteBoot reports firmware that starts again under a boot attempt which a ramdisk has used.
func (s *Server) noteBoot(q *query, m *bootenv.Machine) {
	if q.client != boot.Plain && m != nil && m.Boot != nil && m.Boot.Claimed && s.cfg.OnBoot != nil {
		s.cfg.OnBoot(m.Boot.ID)
	}
}

func (s *Server) leaseRequest(q *query, m *bootenv.Machine) lease.Request {
	r := lease.Request{MAC: q.mac, Link: q.link(s.cfg.Server), Want: q.want, Chosen: q.server.IsValid(), Reserved: func(ip netip.Addr) bool {
		mac, held := s.cfg.Table.Reserved(ip)
		return held && mac != q.mac || ip == s.cfg.Server
	}}
	if m != nil {
		r.Epoch = m.Epoch
		if p, ok := m.Port(q.mac); ok {
			r.Fixed = p.IP
		}
	}
	return r
}

func (s *Server) discover(q *query, m *bootenv.Machine, r lease.Request, ans boot.Answer, now time.Duration) *dhcpv4.DHCPv4 {
	s.mu.Lock()
	g, err := s.pool.Offer(r, now)
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("dhcp: no offer", "mac", q.mac.String(), "err", err)
		return nil
	}
	if g.Instead {
		s.log.Warn("dhcp: the port's address is not given: it is of another subnet, or somebody else uses it", "node", nodeName(m), "mac", q.mac.String(), "address", r.Fixed, "ip", g.IP)
	}
	if g.From != ([6]byte{}) {
		s.log.Warn("dhcp: the pool is exhausted, an address is given again that a machine now of another agent may still use",
			"node", nodeName(m), "mac", q.mac.String(), "ip", g.IP, "from", bootenv.MAC(g.From).String())
	}
	s.log.Debug("dhcp: offer", "node", nodeName(m), "mac", q.mac.String(), "ip", g.IP, "client", q.client.String(), "serve", ans.Serve.String(), "file", ans.File, "why", ans.Why)
	return s.lease(q, dhcpv4.MessageTypeOffer, g, ans)
}

func (s *Server) request(q *query, m *bootenv.Machine, r lease.Request, ans boot.Answer, now time.Duration) *dhcpv4.DHCPv4 {
	s.mu.Lock()
	g, err := s.pool.Confirm(r, now)
	s.mu.Unlock()
	switch {
	case fault.Is(err, fault.Denied) && (m != nil || q.server.IsValid()):
		s.log.Info("dhcp: refused", "node", nodeName(m), "mac", q.mac.String(), "ip", q.want)
		nak := s.reply(q, dhcpv4.MessageTypeNak)
		nak.SetBroadcast()
		return nak
	case err != nil:
		// Neither ours nor an unknown machine's first choice: another server of the link may know better (RFC 2131
		// section 4.3.2).
		return nil
	}
	s.log.Info("dhcp: lease", "node", nodeName(m), "mac", q.mac.String(), "ip", g.IP, "client", q.client.String(), "serve", ans.Serve.String(), "file", ans.File, "why", ans.Why)
	return s.lease(q, dhcpv4.MessageTypeAck, g, ans)
}

func (s *Server) inform(q *query, ans boot.Answer) *dhcpv4.DHCPv4 {
	s.mu.Lock()
	sub, ok := s.pool.Subnet(q.link(s.cfg.Server))
	s.mu.Unlock()
	if !ok || !q.ciaddr.IsValid() {
		return nil
	}
	r := s.reply(q, dhcpv4.MessageTypeAck)
	network(r, sub)
	bootOptions(r, q, ans, s.self)
	return r
}

// proxyOffer answers PXE and HTTP boot clients without an address.
func (s *Server) proxyOffer(q *query, ans boot.Answer) *dhcpv4.DHCPv4 {
	if q.typ != dhcpv4.MessageTypeDiscover || ans.Serve != boot.Program && ans.Serve != boot.Script {
		return nil
	}
	r := s.reply(q, dhcpv4.MessageTypeOffer)
	bootOptions(r, q, ans, s.self)
	proxyOptions(r, q)
	return r
}

// answerBootServer handles a packet of port 4011.
func (s *Server) answerBootServer(packet []byte, from netip.AddrPort, now time.Duration) ([]byte, netip.AddrPort) {
	q, ok := parse(packet, from)
	if !ok || q.client == boot.Plain || q.typ != dhcpv4.MessageTypeRequest && q.typ != dhcpv4.MessageTypeInform {
		return nil, netip.AddrPort{}
	}
	m, _ := s.cfg.Table.ByMAC(q.mac)
	ans := boot.Decide(s.rack(), boot.Request{MAC: q.mac, Client: q.client, Arch: q.arch}, m.Assignment(q.mac, now))
	if ans.Serve != boot.Program && ans.Serve != boot.Script {
		return nil, netip.AddrPort{}
	}
	s.noteBoot(&q, m)
	s.log.Info("dhcp: boot server answer", "node", nodeName(m), "mac", q.mac.String(), "client", q.client.String(), "file", ans.File, "why", ans.Why)
	r := s.reply(&q, dhcpv4.MessageTypeAck)
	bootOptions(r, &q, ans, s.self)
	proxyOptions(r, &q)
	b, _ := s.marshal(&q, r)
	return b, from
}

func nodeName(m *bootenv.Machine) string {
	if m == nil {
		return ""
	}
	return m.Node
}
