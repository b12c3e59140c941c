package dhcp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"pgregory.net/rapid"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/lease"
)

const leaseTime = time.Hour

// segment is a network with the DHCP servers of two agents of one group: what a machine sends by broadcast reaches both.
type segment struct {
	clk    *fakeClock
	agents [2]*Server
}

// newSegment gives each agent a part of the pool: 127.77.0.100 and up, 127.77.0.200 and up.
func newSegment(t testing.TB, addresses int) *segment {
	t.Helper()
	g := &segment{clk: &fakeClock{}}
	for i := range g.agents {
		first := 100 * (i + 1)
		var err error
		g.agents[i], err = New(Config{Table: bootenv.New(), Rack: boot.Rack{HTTP: baseURL}, Server: addr(i + 1), Clock: g.clk,
			Subnets: []lease.Subnet{{Prefix: netip.MustParsePrefix("127.77.0.0/24"), Lease: leaseTime, Pool: []lease.Range{{First: addr(first), Last: addr(first + addresses - 1)}}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// restart starts an agent anew with the leases of its journal. It is told its machines later.
func (g *segment) restart(t testing.TB, i int) {
	t.Helper()
	cfg := g.agents[i].cfg
	cfg.Table, cfg.Leases = bootenv.New(), g.agents[i].Leases()
	var err error
	if g.agents[i], err = New(cfg); err != nil {
		t.Fatal(err)
	}
}

// move gives a machine to one agent and takes it from the other.
func (g *segment) move(t testing.TB, mac bootenv.MAC, to int, epoch uint64) {
	t.Helper()
	node := "node-" + mac.String()
	g.agents[1-to].cfg.Table.Remove(node, epoch)
	if err := g.agents[to].cfg.Table.Put(bootenv.Machine{Node: node, Epoch: epoch, Ports: []bootenv.Port{{MAC: mac, PXE: true}}}); err != nil {
		t.Fatal(err)
	}
}

// broadcast returns the answers by agent; nil is silence.
func (g *segment) broadcast(t testing.TB, m *dhcpv4.DHCPv4) (answers [2]*dhcpv4.DHCPv4) {
	t.Helper()
	for i, s := range g.agents {
		answers[i], _ = ask(t, s, m)
	}
	return answers
}

// host is a machine's DHCP client.
type host struct {
	mac    bootenv.MAC
	ip     netip.Addr // the zero Addr: none
	server int        // who confirmed it last
	until  time.Duration
}

// start is a restart that asks anew: discover, and request from whoever offers.
func (h *host) start(t testing.TB, g *segment) {
	t.Helper()
	h.ip = netip.Addr{}
	for i, offer := range g.broadcast(t, message(dhcpv4.MessageTypeDiscover, h.mac)) {
		if offer == nil {
			continue
		}
		got := ip4(offer.YourIPAddr)
		h.take(t, g, g.broadcast(t, message(dhcpv4.MessageTypeRequest, h.mac, want(got), toServer(addr(i+1).String()))))
		return
	}
}

// renew asks who confirmed the address last; rebind asks everybody.
func (h *host) renew(t testing.TB, g *segment) {
	t.Helper()
	var answers [2]*dhcpv4.DHCPv4
	answers[h.server], _ = ask(t, g.agents[h.server], h.renewal())
	h.take(t, g, answers)
}

func (h *host) rebind(t testing.TB, g *segment) {
	t.Helper()
	h.take(t, g, g.broadcast(t, h.renewal()))
}

func (h *host) renewal() *dhcpv4.DHCPv4 {
	return message(dhcpv4.MessageTypeRequest, h.mac, dhcpv4.WithClientIP(h.ip.AsSlice()))
}

func (h *host) take(t testing.TB, g *segment, answers [2]*dhcpv4.DHCPv4) {
	t.Helper()
	for i, r := range answers {
		switch {
		case r == nil:
		case r.MessageType() == dhcpv4.MessageTypeNak:
			t.Errorf("agent %d refuses %s, the address of %s", i, h.ip, h.mac)
			h.ip = netip.Addr{}
			return
		default:
			h.ip, h.server, h.until = ip4(r.YourIPAddr), i, g.clk.Boottime()+leaseTime
		}
	}
}

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{127, 77, 0, byte(n)}) }

func newHost(n byte) *host { return &host{mac: bootenv.MAC{0x52, 0x54, 0, 0, 1, n}} }

func TestAddressSurvivesAChangeOfOwner(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("old owner restarted %v", restarted), func(t *testing.T) {
			g := newSegment(t, 3)
			h := newHost(1)
			g.move(t, h.mac, 0, 1)
			h.start(t, g)
			had := h.ip
			if had != addr(100) {
				t.Fatalf("the machine has %s, want the first address of agent 0", had)
			}
			g.move(t, h.mac, 1, 2)
			if restarted {
				g.restart(t, 0)
			}
			g.clk.advance(leaseTime / 2)
			if h.renew(t, g); h.until != leaseTime {
				t.Error("the old owner answers a machine that is not its own")
			}
			g.clk.advance(leaseTime / 4)
			h.rebind(t, g)
			if h.ip != had || h.server != 1 {
				t.Fatalf("the machine has %s of agent %d, want %s of agent 1", h.ip, h.server, had)
			}
			for range 5 { // agent 0 hears none of this
				g.clk.advance(leaseTime / 2)
				h.renew(t, g)
			}
			for n := byte(2); n <= 3; n++ {
				o := newHost(n)
				g.move(t, o.mac, 0, 1)
				if o.start(t, g); !o.ip.IsValid() || o.ip == h.ip {
					t.Errorf("another machine is given %s while %s is in use and one is free", o.ip, h.ip)
				}
			}
			// Agent 1 knows after a restart, too, what the machine has.
			kept := g.agents[1].cfg.Table
			g.restart(t, 1)
			g.agents[1].cfg.Table = kept
			if r, _ := ask(t, g.agents[1], message(dhcpv4.MessageTypeDiscover, h.mac)); r == nil || ip4(r.YourIPAddr) != had {
				t.Errorf("after the new owner's restart the machine is offered %v, want %s", r, had)
			}
		})
	}
}

func TestMachineThatTakesAnotherAddressFreesTheFirst(t *testing.T) {
	g := newSegment(t, 1)
	h, o := newHost(1), newHost(2)
	g.move(t, h.mac, 0, 1)
	g.move(t, o.mac, 0, 1)
	h.start(t, g)
	had := h.ip
	g.move(t, h.mac, 1, 2)
	h.start(t, g)
	if h.ip != addr(200) {
		t.Fatalf("the machine starts with %s, want agent 1's", h.ip)
	}
	if o.start(t, g); o.ip != had {
		t.Errorf("the other machine has %s, want %s, which is free", o.ip, had)
	}
}

func TestReleaseReachesTheOwnerBefore(t *testing.T) {
	g := newSegment(t, 1)
	h, o := newHost(1), newHost(2)
	g.move(t, h.mac, 0, 1)
	g.move(t, o.mac, 0, 1)
	h.start(t, g)
	g.move(t, h.mac, 1, 2)
	if r, _ := ask(t, g.agents[0], message(dhcpv4.MessageTypeRelease, h.mac, dhcpv4.WithClientIP(h.ip.AsSlice()))); r != nil {
		t.Error("a release was answered")
	}
	if o.start(t, g); o.ip != h.ip {
		t.Errorf("the other machine has %s, want %s, which was released", o.ip, h.ip)
	}
}

func TestExhaustedPoolGivesWhatWasKeptLast(t *testing.T) {
	g := newSegment(t, 2)
	gone, o1, o2 := newHost(1), newHost(2), newHost(3)
	for _, h := range []*host{gone, o1, o2} {
		g.move(t, h.mac, 0, 1)
	}
	gone.start(t, g)
	g.move(t, gone.mac, 1, 2)
	g.clk.advance(leaseTime)
	if o1.start(t, g); o1.ip == gone.ip {
		t.Errorf("%s is given while another address is free", gone.ip)
	}
	if o2.start(t, g); o2.ip != gone.ip {
		t.Errorf("the last machine has %s, want %s: its machine was silent for a whole lease, and nothing else is free", o2.ip, gone.ip)
	}
}

// TestNoAddressTwiceOnASegment moves machines between the agents, restarts both, and checks that no two machines use one
// address, and that none loses its own.
func TestNoAddressTwiceOnASegment(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newSegment(t, 8)
		var hosts []*host
		owner := map[*host]int{}
		epoch := uint64(1)
		for n := range byte(4) {
			h := newHost(n)
			hosts = append(hosts, h)
			g.move(t, h.mac, 0, epoch)
		}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			h := rapid.SampledFrom(hosts).Draw(rt, "machine")
			switch rapid.SampledFrom([]string{"start", "start", "move", "restart agent", "time"}).Draw(rt, "action") {
			case "start":
				h.start(t, g)
			case "move":
				epoch++
				owner[h] = 1 - owner[h]
				g.move(t, h.mac, owner[h], epoch)
			case "restart agent":
				i := rapid.IntRange(0, 1).Draw(rt, "agent")
				g.restart(t, i)
				for _, o := range hosts {
					if owner[o] == i {
						g.move(t, o.mac, i, epoch)
					}
				}
			case "time":
				g.clk.advance(leaseTime / 2)
				for _, o := range hosts {
					if !o.ip.IsValid() {
						continue
					}
					if o.renew(t, g); o.until <= g.clk.Boottime()+leaseTime/2 {
						o.rebind(t, g)
					}
					if o.until <= g.clk.Boottime() {
						rt.Fatalf("%s lost %s", o.mac, o.ip)
					}
				}
			}
			users := map[netip.Addr]*host{}
			for _, o := range hosts {
				if u := users[o.ip]; u != nil && o.ip.IsValid() {
					rt.Fatalf("%s and %s both use %s", u.mac, o.mac, o.ip)
				}
				users[o.ip] = o
			}
		}
	})
}

func TestMachineOfAnotherAgentWasToldToHalt(t *testing.T) {
	g := newSegment(t, 3)
	h := newHost(1)
	g.move(t, h.mac, 0, 1)
	rom := message(dhcpv4.MessageTypeDiscover, h.mac, class("PXEClient:Arch:00007:UNDI:003000"))
	for _, s := range g.agents {
		s.cfg.Rack.Unknown = boot.Halt
	}
	offered := func(when string, want [2]bool) {
		t.Helper()
		for i, r := range g.broadcast(t, rom) {
			if (r != nil) != want[i] {
				t.Errorf("%s: agent %d answered: %v, want %v", when, i, r != nil, want[i])
			}
		}
	}
	offered("before agent 1 knows its machines", [2]bool{true, false})
	g.agents[1].Complete()
	offered("alone, as far as agent 1 knows", [2]bool{true, true})
	g.agents[1].Share()
	offered("agent 1 knows of agent 0", [2]bool{true, false})
	g.agents[1].Complete() // a new stream
	offered("agent 1 has another stream", [2]bool{true, false})
}
