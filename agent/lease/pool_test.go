package lease

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/farrier-project/farrier/pkg/fault"
)

func ip(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, n}) }

func mac(n byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, n} }

var link = ip(1)

func pool(t *testing.T, first, last byte) *Pool {
	t.Helper()
	p, err := New([]Subnet{{Prefix: netip.MustParsePrefix("10.77.0.0/24"), Router: ip(1), Lease: time.Hour, Pool: []Range{{ip(first), ip(last)}}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOfferThenConfirm(t *testing.T) {
	p := pool(t, 10, 20)
	g, err := p.Offer(Request{MAC: mac(1), Link: link}, 0)
	if err != nil || g.IP != ip(10) || g.For != time.Hour {
		t.Fatalf("offer %+v, %v", g, err)
	}
	again, err := p.Offer(Request{MAC: mac(1), Link: link}, time.Second)
	if err != nil || again.IP != g.IP {
		t.Errorf("the second offer is %s, %v", again.IP, err)
	}
	if g2, err := p.Confirm(Request{MAC: mac(1), Link: link, Want: g.IP}, 2*time.Second); err != nil || g2.IP != g.IP {
		t.Fatalf("confirm %+v, %v", g2, err)
	}
	if late, err := p.Offer(Request{MAC: mac(1), Link: link}, 30*time.Minute); err != nil || late.IP != g.IP {
		t.Errorf("a bound machine is offered %s, %v", late.IP, err)
	}
	if _, err := p.Confirm(Request{MAC: mac(2), Link: link, Want: g.IP}, time.Minute); !fault.Is(err, fault.Denied) {
		t.Errorf("another machine got the address: %v", err)
	}
}

func TestExhaustionAndExpiry(t *testing.T) {
	p := pool(t, 10, 11)
	for n := range byte(2) {
		if _, err := p.Offer(Request{MAC: mac(n), Link: link}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Confirm(Request{MAC: mac(0), Link: link, Want: ip(10)}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Offer(Request{MAC: mac(9), Link: link}, OfferHold-1); !fault.Is(err, fault.Busy) {
		t.Fatalf("an exhausted pool: %v, want busy", err)
	}
	g, err := p.Offer(Request{MAC: mac(9), Link: link}, OfferHold)
	if err != nil || g.IP != ip(11) {
		t.Errorf("after the offer ran out: %s, %v", g.IP, err)
	}
	if _, err := p.Offer(Request{MAC: mac(8), Link: link}, OfferHold); !fault.Is(err, fault.Busy) {
		t.Errorf("exhausted again: %v, want busy", err)
	}
	if g, err := p.Offer(Request{MAC: mac(8), Link: link}, time.Hour); err != nil || g.IP != ip(11) && g.IP != ip(10) {
		t.Errorf("after the lease ran out: %s, %v", g.IP, err)
	}
}

func TestReservations(t *testing.T) {
	p := pool(t, 10, 12)
	reserved := func(a netip.Addr) bool { return a == ip(10) || a == ip(99) }
	g, err := p.Offer(Request{MAC: mac(1), Link: link, Fixed: ip(99), Want: ip(11)}, 0)
	if err != nil || g.IP != ip(99) {
		t.Errorf("a port with an address is offered %s, %v", g.IP, err)
	}
	if _, err := p.Confirm(Request{MAC: mac(1), Link: link, Fixed: ip(99), Want: ip(11)}, 0); !fault.Is(err, fault.Denied) {
		t.Errorf("it may keep another address: %v", err)
	}
	if g, err := p.Confirm(Request{MAC: mac(1), Link: link, Fixed: ip(99), Want: ip(99)}, 0); err != nil || g.IP != ip(99) {
		t.Errorf("confirm %s, %v", g.IP, err)
	}
	if g, err := p.Offer(Request{MAC: mac(2), Link: link, Reserved: reserved, Want: ip(10)}, 0); err != nil || g.IP != ip(11) {
		t.Errorf("the pool gave %s, %v, want the first that is not reserved", g.IP, err)
	}
	if _, err := p.Confirm(Request{MAC: mac(2), Link: link, Reserved: reserved, Want: ip(10)}, 0); !fault.Is(err, fault.Denied) {
		t.Errorf("a reserved address was confirmed: %v", err)
	}
	// A port gets an address that a lease holds: the holder moves at its next request.
	taken := func(a netip.Addr) bool { return a == ip(11) }
	if g, err := p.Offer(Request{MAC: mac(2), Link: link, Reserved: taken}, 0); err != nil || g.IP == ip(11) {
		t.Errorf("still offered %s, %v", g.IP, err)
	}
}

func TestDeclineQuarantines(t *testing.T) {
	p := pool(t, 10, 10)
	if _, err := p.Offer(Request{MAC: mac(1), Link: link}, 0); err != nil {
		t.Fatal(err)
	}
	if p.Decline(mac(2), ip(10), netip.Addr{}, 0) {
		t.Error("a machine declined another's address")
	}
	if !p.Decline(mac(1), ip(10), netip.Addr{}, 0) {
		t.Error("decline was not taken")
	}
	if _, err := p.Offer(Request{MAC: mac(1), Link: link}, Quarantine-1); !fault.Is(err, fault.Busy) {
		t.Errorf("in quarantine: %v, want busy", err)
	}
	if p.Release(mac(1), ip(10)) {
		t.Error("released from quarantine")
	}
	if g, err := p.Offer(Request{MAC: mac(1), Link: link}, Quarantine); err != nil || g.IP != ip(10) {
		t.Errorf("after quarantine: %s, %v", g.IP, err)
	}
}

func TestReservedAddressThatAnotherMachineStillHas(t *testing.T) {
	p := pool(t, 10, 12)
	if _, err := p.Confirm(Request{MAC: mac(2), Link: link, Want: ip(10)}, 0); err != nil {
		t.Fatal(err)
	}
	q := Request{MAC: mac(1), Link: link, Epoch: 1, Fixed: ip(10)}
	g, err := p.Offer(q, time.Minute)
	if err != nil || g.IP == ip(10) || !g.Instead {
		t.Fatalf("offered %+v, %v, want another address than the reserved one, and to be told", g, err)
	}
	q.Want, q.Chosen = ip(10), true
	if _, err := p.Confirm(q, time.Minute); !fault.Is(err, fault.Denied) {
		t.Errorf("the address of two machines was confirmed: %v", err)
	}
	q.Want = g.IP
	if g, err := p.Confirm(q, time.Minute); err != nil || g.IP != q.Want {
		t.Errorf("confirm %+v, %v", g, err)
	}
	if g, err := p.Offer(q, time.Hour); err != nil || g.IP != ip(10) || g.Instead {
		t.Errorf("when the lease has run out: %+v, %v, want the reserved address", g, err)
	}
}

func TestReservedAddressOfAnotherLinkIsTold(t *testing.T) {
	p := pool(t, 10, 12)
	if g, err := p.Offer(Request{MAC: mac(1), Link: link, Fixed: netip.MustParseAddr("192.0.2.1")}, 0); err != nil || g.IP != ip(10) || !g.Instead {
		t.Errorf("%+v, %v, want the pool's and to be told", g, err)
	}
}

func TestDeclinedReservationIsNotOfferedAgain(t *testing.T) {
	p := pool(t, 10, 12)
	q := Request{MAC: mac(1), Link: link, Epoch: 1, Fixed: ip(99)}
	if p.Decline(mac(1), ip(99), netip.Addr{}, 0) {
		t.Error("a machine declined what is not its own")
	}
	if !p.Decline(mac(1), ip(99), ip(99), 0) || p.Decline(mac(1), ip(99), ip(99), 0) {
		t.Error("want the first decline to be taken, and the second to change nothing")
	}
	if g, err := p.Offer(q, Quarantine-1); err != nil || g.IP != ip(10) || !g.Instead {
		t.Errorf("in quarantine: %+v, %v, want one of the pool", g, err)
	}
	if g, err := p.Offer(q, Quarantine); err != nil || g.IP != ip(99) {
		t.Errorf("after quarantine: %+v, %v", g, err)
	}
	if g, err := p.Offer(Request{MAC: mac(2), Link: link, Want: ip(99)}, Quarantine); err != nil || g.IP == ip(99) {
		t.Errorf("an address outside the pool was given to another machine: %+v, %v", g, err)
	}
}

func TestReleaseAndRestart(t *testing.T) {
	p := pool(t, 10, 12)
	for n := byte(1); n <= 2; n++ {
		if _, err := p.Confirm(Request{MAC: mac(n), Link: link, Want: ip(9 + n)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	p.Decline(mac(2), ip(11), netip.Addr{}, 0)
	kept := p.Leases()
	q := pool(t, 10, 12)
	q.Restore(append(kept, Lease{MAC: mac(7), IP: ip(200), State: Bound}, Lease{MAC: mac(8), IP: ip(10), State: Bound}), time.Minute)
	if got := len(q.Leases()); got != 2 {
		t.Errorf("%d leases after the restart, want 2", got)
	}
	if g, err := q.Offer(Request{MAC: mac(1), Link: link}, time.Minute); err != nil || g.IP != ip(10) {
		t.Errorf("the machine is offered %s, %v, want its address", g.IP, err)
	}
	if g, err := q.Offer(Request{MAC: mac(3), Link: link}, time.Minute); err != nil || g.IP != ip(12) {
		t.Errorf("a new machine is offered %s, %v", g.IP, err)
	}
	if q.Release(mac(3), ip(10)) {
		t.Error("a machine released another's address")
	}
	if !q.Release(mac(1), ip(10)) {
		t.Error("release was not taken")
	}
	// A machine that this pool has forgotten renews what nobody holds.
	if g, err := q.Confirm(Request{MAC: mac(9), Link: link, Want: ip(10)}, time.Minute); err != nil || g.IP != ip(10) {
		t.Errorf("renewal: %s, %v", g.IP, err)
	}
}

func TestElsewhere(t *testing.T) {
	p := pool(t, 10, 10)
	if _, err := p.Offer(Request{MAC: mac(1), Link: link}, 0); err != nil {
		t.Fatal(err)
	}
	p.Elsewhere(mac(1), link, netip.Addr{})
	if g, err := p.Offer(Request{MAC: mac(2), Link: link}, 0); err != nil || g.IP != ip(10) {
		t.Errorf("%s, %v", g.IP, err)
	}
	if _, err := p.Confirm(Request{MAC: mac(2), Link: link, Want: ip(10)}, 0); err != nil {
		t.Fatal(err)
	}
	p.Elsewhere(mac(2), link, netip.Addr{})
	if len(p.Leases()) != 1 {
		t.Error("a bound lease was released as an offer")
	}
}

func TestNewRefuses(t *testing.T) {
	ok := Subnet{Prefix: netip.MustParsePrefix("10.77.0.0/24")}
	tests := map[string][]Subnet{
		"no prefix":            {{}},
		"IPv6":                 {{Prefix: netip.MustParsePrefix("fd00::/64")}},
		"router outside":       {{Prefix: ok.Prefix, Router: netip.MustParseAddr("10.78.0.1")}},
		"range outside":        {{Prefix: ok.Prefix, Pool: []Range{{ip(1), netip.MustParseAddr("10.77.1.1")}}}},
		"range backwards":      {{Prefix: ok.Prefix, Pool: []Range{{ip(9), ip(3)}}}},
		"pool too large":       {{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Pool: []Range{{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.9.0.0")}}}},
		"overlap":              {ok, {Prefix: netip.MustParsePrefix("10.77.0.128/25")}},
		"lease of a second":    {{Prefix: ok.Prefix, Lease: time.Second}},
		"too many nameservers": {{Prefix: ok.Prefix, DNS: slices.Repeat([]netip.Addr{ip(1)}, 5)}},
	}
	for name, subnets := range tests {
		if _, err := New(subnets); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	p, err := New([]Subnet{ok})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Offer(Request{MAC: mac(1), Link: netip.MustParseAddr("192.0.2.1")}, 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("a link without a subnet: %v, want not found", err)
	}
	if _, err := p.Offer(Request{MAC: mac(1), Link: link}, 0); !fault.Is(err, fault.Busy) {
		t.Errorf("a subnet without a pool: %v, want busy", err)
	}
}

func TestNeverGivesNetworkBroadcastRouter(t *testing.T) {
	p, err := New([]Subnet{{Prefix: netip.MustParsePrefix("10.77.0.0/29"), Router: ip(1), Pool: []Range{{ip(0), ip(7)}}}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range byte(5) {
		g, err := p.Offer(Request{MAC: mac(n), Link: link, Want: ip(7)}, 0)
		if err != nil || g.IP != ip(n+2) {
			t.Errorf("machine %d: %s, %v", n, g.IP, err)
		}
	}
	if _, err := p.Offer(Request{MAC: mac(9), Link: link}, 0); !fault.Is(err, fault.Busy) {
		t.Errorf("after five: %v, want busy", err)
	}
}

// TestNoAddressTwice draws requests and checks that no two machines hold one address, and none a reserved one.
func TestNoAddressTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := pool(t, 10, 15)
		reserved := func(a netip.Addr) bool { return a == ip(12) }
		holds := map[netip.Addr][6]byte{}
		until := map[netip.Addr]time.Duration{}
		var now time.Duration
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now += time.Duration(rapid.IntRange(0, 40).Draw(rt, "minutes")) * time.Minute
			m := mac(rapid.ByteRange(1, 9).Draw(rt, "machine"))
			want := ip(rapid.ByteRange(9, 16).Draw(rt, "want"))
			switch rapid.IntRange(0, 3).Draw(rt, "action") {
			case 0:
				if g, err := p.Offer(Request{MAC: m, Link: link, Want: want, Reserved: reserved}, now); err == nil && reserved(g.IP) {
					rt.Fatalf("offered a reserved address")
				}
			case 1:
				g, err := p.Confirm(Request{MAC: m, Link: link, Want: want, Reserved: reserved}, now)
				if err != nil {
					continue
				}
				if h, ok := holds[g.IP]; ok && h != m && until[g.IP] > now {
					rt.Fatalf("%s is %v's until %s, given to %v at %s", g.IP, h, until[g.IP], m, now)
				}
				for a, h := range holds { // a machine has one address
					if h == m {
						delete(holds, a)
					}
				}
				holds[g.IP], until[g.IP] = m, now+time.Hour
			case 2:
				if p.Release(m, want) {
					delete(holds, want)
				}
			case 3:
				if p.Decline(m, want, netip.Addr{}, now) {
					delete(holds, want)
				}
			}
			if len(p.byIP) != len(p.due) {
				rt.Fatalf("%d addresses, %d deadlines", len(p.byIP), len(p.due))
			}
		}
	})
}
