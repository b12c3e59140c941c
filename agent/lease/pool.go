package lease

import (
	"container/heap"
	"net/netip"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Lease is an address in use. Reserved addresses have no Lease: they are the machine's for good.
type Lease struct {
	MAC     [6]byte
	IP      netip.Addr
	Expires time.Duration // on the caller's clock
	State   State
}

// State is what holds an address.
type State uint8

// The states.
const (
	_        State = iota
	Offered        // until OfferHold passes
	Bound          // confirmed by a request
	Declined       // somebody else uses it, says the machine that got it: quarantined
)

// Request is one machine's wish for an address.
type Request struct {
	MAC   [6]byte
	Link  netip.Addr // an address of the link it is on: the relay's, or the listening interface's
	Want  netip.Addr // what it had, or was offered; the zero Addr: anything
	Fixed netip.Addr // reserved for it; the zero Addr: none
	// Reserved tells whether an address is kept for a MAC other than this one. Nil: none is.
	Reserved func(netip.Addr) bool
}

// Grant is the answer to a Request.
type Grant struct {
	IP     netip.Addr
	Subnet *Subnet // not to be changed
	For    time.Duration
}

// Pool holds the leases of all subnets.
type Pool struct {
	subnets []*subnet
	byMAC   map[key]*entry
	byIP    map[netip.Addr]*entry
	due     dueHeap
}

// key is per link: a machine with one MAC may have an address on each of several links.
type key struct {
	mac [6]byte
	net *subnet
}

type subnet struct {
	Subnet
	free   []netip.Addr // addresses to try, oldest first
	queued map[netip.Addr]bool
}

type entry struct {
	Lease
	net   *subnet
	index int // in due
}

// New checks the subnets as a whole and makes an empty pool.
func New(subnets []Subnet) (*Pool, error) {
	if len(subnets) > MaxSubnets {
		return nil, fault.New(fault.Invalid, "address pool", "%d subnets, more than %d", len(subnets), MaxSubnets)
	}
	p := &Pool{byMAC: map[key]*entry{}, byIP: map[netip.Addr]*entry{}}
	for i, s := range subnets {
		if s.Lease == 0 {
			s.Lease = DefaultLease
		}
		if s.MaxPool == 0 {
			s.MaxPool = MaxPool
		}
		s.Prefix = s.Prefix.Masked()
		if err := s.validate(); err != nil {
			return nil, err
		}
		for _, o := range p.subnets {
			if o.Prefix.Overlaps(s.Prefix) {
				return nil, fault.New(fault.Invalid, "address pool", "subnets %s and %s overlap", o.Prefix, s.Prefix)
			}
		}
		n := &subnet{Subnet: subnets[i], queued: map[netip.Addr]bool{}}
		n.Subnet = s
		for _, r := range s.Pool {
			for a := r.First; ; a = a.Next() {
				if s.usable(a) {
					n.push(a)
				}
				if a == r.Last {
					break
				}
			}
		}
		p.subnets = append(p.subnets, n)
	}
	return p, nil
}

func (s *subnet) push(ip netip.Addr) {
	if !s.queued[ip] {
		s.queued[ip] = true
		s.free = append(s.free, ip)
	}
}

func (s *subnet) inPool(ip netip.Addr) bool {
	for _, r := range s.Pool {
		if !ip.Less(r.First) && !r.Last.Less(ip) {
			return s.usable(ip)
		}
	}
	return false
}

// Subnet finds the subnet of a link.
func (p *Pool) Subnet(link netip.Addr) (*Subnet, bool) {
	if s := p.find(link); s != nil {
		return &s.Subnet, true
	}
	return nil, false
}

func (p *Pool) find(link netip.Addr) *subnet {
	for _, s := range p.subnets {
		if s.Prefix.Contains(link) {
			return s
		}
	}
	return nil
}

// Offer proposes an address and holds it for OfferHold. Errors: NotFound, the link has no subnet; Busy, the pool is
// exhausted.
func (p *Pool) Offer(q Request, now time.Duration) (Grant, error) {
	s, err := p.subnetOf(q)
	if err != nil {
		return Grant{}, err
	}
	p.Expire(now)
	if s.Prefix.Contains(q.Fixed) {
		p.drop(p.byMAC[key{q.MAC, s}])
		return Grant{IP: q.Fixed, Subnet: &s.Subnet, For: s.Lease}, nil
	}
	if e := p.byMAC[key{q.MAC, s}]; e != nil {
		if !q.reserved(e.IP) {
			if e.State == Offered {
				p.touch(e, now+OfferHold)
			}
			return Grant{IP: e.IP, Subnet: &s.Subnet, For: s.Lease}, nil
		}
		p.drop(e) // a port got the address since
	}
	ip, ok := p.take(s, q)
	if !ok {
		return Grant{}, fault.New(fault.Busy, "offer address", "the pool of %s is exhausted", s.Prefix).
			WithHelp("enlarge the subnet's ranges, shorten its lease, or give the ports addresses")
	}
	p.add(s, Lease{MAC: q.MAC, IP: ip, Expires: now + OfferHold, State: Offered})
	return Grant{IP: ip, Subnet: &s.Subnet, For: s.Lease}, nil
}

// Confirm binds the address that a machine asks for, q.Want. Errors: NotFound, the link has no subnet; Denied, it
// may not have this address: refuse it aloud (DHCPNAK), it will start over. A machine that renews an
// address of the pool that nobody holds, as after this agent's restart, gets it.
func (p *Pool) Confirm(q Request, now time.Duration) (Grant, error) {
	s, err := p.subnetOf(q)
	if err != nil {
		return Grant{}, err
	}
	p.Expire(now)
	if s.Prefix.Contains(q.Fixed) {
		p.drop(p.byMAC[key{q.MAC, s}])
		if q.Want != q.Fixed {
			return Grant{}, denied(q)
		}
		return Grant{IP: q.Fixed, Subnet: &s.Subnet, For: s.Lease}, nil
	}
	e := p.byMAC[key{q.MAC, s}]
	switch holder := p.byIP[q.Want]; {
	case q.reserved(q.Want), holder != nil && holder != e:
		return Grant{}, denied(q)
	case e != nil && e.IP == q.Want:
		e.State = Bound
		p.touch(e, now+s.Lease)
	case s.inPool(q.Want):
		p.drop(e)
		p.add(s, Lease{MAC: q.MAC, IP: q.Want, Expires: now + s.Lease, State: Bound})
	default:
		return Grant{}, denied(q)
	}
	return Grant{IP: q.Want, Subnet: &s.Subnet, For: s.Lease}, nil
}

// Decline quarantines an address that a machine found in use. Only the machine that holds it may say so. It tells whether
// anything changed.
func (p *Pool) Decline(mac [6]byte, ip netip.Addr, now time.Duration) bool {
	e := p.byIP[ip]
	if e == nil || e.MAC != mac || e.State == Declined {
		return false
	}
	delete(p.byMAC, key{e.MAC, e.net})
	e.State = Declined
	p.touch(e, now+Quarantine)
	return true
}

// Release gives an address back, if the machine holds it.
func (p *Pool) Release(mac [6]byte, ip netip.Addr) bool {
	e := p.byIP[ip]
	if e == nil || e.MAC != mac || e.State == Declined {
		return false
	}
	p.drop(e)
	return true
}

// ReleaseOffer frees what was only offered to a machine on a link: it took another server's offer.
func (p *Pool) ReleaseOffer(mac [6]byte, link netip.Addr) {
	if e := p.byMAC[key{mac, p.find(link)}]; e != nil && e.State == Offered {
		p.drop(e)
	}
}

// Expire frees what has run out.
func (p *Pool) Expire(now time.Duration) {
	for len(p.due) > 0 && p.due[0].Expires <= now {
		p.drop(p.due[0])
	}
}

// Leases lists what is in use, in no order, to be journalled. Offers are left out.
func (p *Pool) Leases() []Lease {
	all := make([]Lease, 0, len(p.byIP))
	for _, e := range p.byIP {
		if e.State != Offered {
			all = append(all, e.Lease)
		}
	}
	return all
}

// Restore takes journalled leases back after a restart. Their time starts anew at now: the earlier clock
// is gone. Leases outside the pools, or twice, are left out.
func (p *Pool) Restore(leases []Lease, now time.Duration) {
	for _, l := range leases {
		s := p.find(l.IP)
		if s == nil || !s.inPool(l.IP) || p.byIP[l.IP] != nil || l.State != Bound && l.State != Declined {
			continue
		}
		if l.State == Bound && p.byMAC[key{l.MAC, s}] != nil {
			continue
		}
		l.Expires = now + s.Lease
		if l.State == Declined {
			l.Expires = now + Quarantine
		}
		p.add(s, l)
	}
}

func (p *Pool) subnetOf(q Request) (*subnet, error) {
	if s := p.find(q.Link); s != nil {
		return s, nil
	}
	return nil, fault.New(fault.NotFound, "offer address", "no subnet holds %s", q.Link).
		WithHelp("add the subnet of this link or relay to the agent's configuration")
}

func denied(q Request) error {
	return fault.New(fault.Denied, "confirm address", "%s is not this machine's", q.Want)
}

func (q Request) reserved(ip netip.Addr) bool { return q.Reserved != nil && q.Reserved(ip) }

// take finds a free address: the wanted one, or the one that has been free longest.
func (p *Pool) take(s *subnet, q Request) (netip.Addr, bool) {
	if q.Want.IsValid() && s.inPool(q.Want) && p.byIP[q.Want] == nil && !q.reserved(q.Want) {
		return q.Want, true
	}
	for range len(s.free) {
		ip := s.free[0]
		s.free = s.free[1:]
		s.queued[ip] = false
		if p.byIP[ip] != nil {
			continue // taken by wish: it comes back when dropped
		}
		if q.reserved(ip) {
			s.push(ip)
			continue
		}
		return ip, true
	}
	return netip.Addr{}, false
}

func (p *Pool) add(s *subnet, l Lease) {
	e := &entry{Lease: l, net: s}
	p.byIP[l.IP] = e
	if l.State != Declined {
		p.byMAC[key{l.MAC, s}] = e
	}
	heap.Push(&p.due, e)
}

func (p *Pool) touch(e *entry, expires time.Duration) {
	e.Expires = expires
	heap.Fix(&p.due, e.index)
}

func (p *Pool) drop(e *entry) {
	if e == nil {
		return
	}
	heap.Remove(&p.due, e.index)
	delete(p.byIP, e.IP)
	if k := (key{e.MAC, e.net}); p.byMAC[k] == e {
		delete(p.byMAC, k)
	}
	e.net.push(e.IP)
}

// dueHeap orders entries by expiry.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].Expires < h[j].Expires }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}
