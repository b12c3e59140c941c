package lease

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Lease is an address in use. Reserved addresses have no Lease: they are the machine's for good.
type Lease struct {
	MAC     [6]byte
	IP      netip.Addr
	Expires time.Duration // on the caller's clock
	State   State
	Epoch   uint64 // of the assignment under which it was confirmed last; 0: the machine was not known
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
	Epoch uint64     // of the machine's assignment to this agent; 0: it is not known
	// Chosen says that Want answers an offer. A machine that was offered nothing asks for what it has already: as after
	// its own restart, or in place of a server that does not answer it any more.
	Chosen bool
	// Reserved tells whether an address is kept for a MAC other than this one. Nil: none is.
	Reserved func(netip.Addr) bool
}

// Grant is the answer to a Request.
type Grant struct {
	IP     netip.Addr
	Subnet *Subnet // not to be changed
	For    time.Duration
	// Instead tells that Fixed could not be given: it is not of this link, or another machine still has it.
	Instead bool
	// From is whose the address was, if it had to be taken from a machine that may still use it; zero: nobody's.
	From [6]byte
}

// Pool holds the leases of all subnets.
type Pool struct {
	// Epoch is that of a machine's assignment to this agent, 0 while it is not assigned. A machine whose epoch is not that
	// of its lease is or was another agent's since, and this pool did not hear whether it still uses its address.
	// Nil: all leases run out. Set before the first use.
	Epoch func(mac [6]byte) uint64

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
	kept   []*entry // run out, of machines that have been away, longest silent first: given to others when nothing else is free
}

const notDue = -1

type entry struct {
	Lease
	net   *subnet
	index int // in due; notDue: in net.kept
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
// exhausted. A reserved address that another machine still has, or that was declined, is not proposed until it is free.
func (p *Pool) Offer(q Request, now time.Duration) (Grant, error) {
	s, err := p.subnetOf(q)
	if err != nil {
		return Grant{}, err
	}
	p.Expire(now)
	if p.fix(s, q) {
		return Grant{IP: q.Fixed, Subnet: &s.Subnet, For: s.Lease}, nil
	}
	g := Grant{Subnet: &s.Subnet, For: s.Lease, Instead: q.Fixed.IsValid()}
	if e := p.byMAC[key{q.MAC, s}]; e != nil {
		if !q.reserved(e.IP) && (q.Epoch != 0 || s.inPool(e.IP)) {
			if e.State == Offered || e.index == notDue {
				p.touch(e, now+OfferHold)
			}
			g.IP = e.IP
			return g, nil
		}
		p.drop(e) // a port got the address since, or it was another agent's to give
	}
	var ok bool
	if g.IP, g.From, ok = p.take(s, q); !ok {
		return Grant{}, fault.New(fault.Busy, "offer address", "the pool of %s is exhausted", s.Prefix).
			WithHelp("enlarge the subnet's ranges, shorten its lease, or give the ports addresses")
	}
	p.add(s, Lease{MAC: q.MAC, IP: g.IP, Expires: now + OfferHold, State: Offered, Epoch: q.Epoch})
	return g, nil
}

// Confirm binds the address that a machine asks for, q.Want. Errors: NotFound, the link has no subnet; Denied, it
// may not have this address: refuse it aloud (DHCPNAK), it will start over. A machine that renews an
// address of the pool that nobody holds, as after this agent's restart, gets it. So does a known machine that has one of
// the subnet outside the pool: the agent that answered it before gave it that, and does not give it to another.
func (p *Pool) Confirm(q Request, now time.Duration) (Grant, error) {
	s, err := p.subnetOf(q)
	if err != nil {
		return Grant{}, err
	}
	p.Expire(now)
	g := Grant{IP: q.Want, Subnet: &s.Subnet, For: s.Lease}
	if p.fix(s, q) {
		if q.Want != q.Fixed {
			return Grant{}, denied(q)
		}
		return g, nil
	}
	g.Instead = q.Fixed.IsValid()
	e := p.byMAC[key{q.MAC, s}]
	mayKeep := s.inPool(q.Want) || q.Epoch != 0 && s.Prefix.Contains(q.Want) && s.usable(q.Want)
	switch holder := p.byIP[q.Want]; {
	case q.reserved(q.Want), holder != nil && holder != e, !mayKeep:
		return Grant{}, denied(q)
	case e != nil && e.IP == q.Want:
		e.State, e.Epoch = Bound, q.Epoch
		p.touch(e, now+s.Lease)
	case s.inPool(q.Want), !q.Chosen:
		p.drop(e)
		p.add(s, Lease{MAC: q.MAC, IP: q.Want, Expires: now + s.Lease, State: Bound, Epoch: q.Epoch})
	default:
		return Grant{}, denied(q)
	}
	return g, nil
}

// fix tells whether the machine's reserved address can be given, and gives up whatever else it has.
func (p *Pool) fix(s *subnet, q Request) bool {
	if !s.Prefix.Contains(q.Fixed) {
		return false
	}
	if e := p.byIP[q.Fixed]; e != nil && e.index == notDue {
		p.drop(e) // the one who reserved it knows better than we do
	} else if e != nil && (e.MAC != q.MAC || e.State == Declined) {
		return false
	}
	p.drop(p.byMAC[key{q.MAC, s}])
	return true
}

// Decline quarantines an address that a machine found in use: the one it holds, or the one reserved for it. It tells
// whether anything changed.
func (p *Pool) Decline(mac [6]byte, ip, fixed netip.Addr, now time.Duration) bool {
	e, s := p.byIP[ip], p.find(ip)
	switch {
	case e == nil && s != nil && ip == fixed:
		p.add(s, Lease{MAC: mac, IP: ip, Expires: now + Quarantine, State: Declined})
		return true
	case e == nil || e.MAC != mac || e.State == Declined:
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

// Elsewhere notes that a machine on a link took ip from another server: what was offered to it here is free, and
// so is what it had here, unless that is the same address.
func (p *Pool) Elsewhere(mac [6]byte, link, ip netip.Addr) {
	if e := p.byMAC[key{mac, p.find(link)}]; e != nil && (e.State == Offered || ip.IsValid() && ip != e.IP) {
		p.drop(e)
	}
}

// Expire frees what has run out. An address of this pool that a machine took along to another agent is kept for it: that
// agent may have confirmed it again and again since.
func (p *Pool) Expire(now time.Duration) {
	for len(p.due) > 0 && p.due[0].Expires <= now {
		e := p.due[0]
		if e.State != Bound || !e.net.inPool(e.IP) || e.Epoch == 0 || p.Epoch == nil || p.Epoch(e.MAC) == e.Epoch {
			p.drop(e)
			continue
		}
		heap.Pop(&p.due)
		e.index = notDue
		e.net.kept = append(e.net.kept, e)
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
// is gone. Leases outside the subnets, or twice, are left out, and so are those outside the pools of machines that were
// not known.
func (p *Pool) Restore(leases []Lease, now time.Duration) {
	for _, l := range leases {
		s := p.find(l.IP)
		if s == nil || p.byIP[l.IP] != nil || l.State != Bound && l.State != Declined || !s.inPool(l.IP) && !(l.Epoch != 0 && s.usable(l.IP)) {
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

// take finds a free address: the wanted one, or the one that has been free longest, or the kept one of the
// machine that has been silent longest, which it names.
func (p *Pool) take(s *subnet, q Request) (ip netip.Addr, from [6]byte, ok bool) {
	if q.Want.IsValid() && s.inPool(q.Want) && p.byIP[q.Want] == nil && !q.reserved(q.Want) {
		return q.Want, from, true
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
		return ip, from, true
	}
	for _, e := range s.kept {
		if !q.reserved(e.IP) {
			p.drop(e)
			return e.IP, e.MAC, true
		}
	}
	return netip.Addr{}, from, false
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
	if e.index == notDue {
		e.net.unkeep(e)
		heap.Push(&p.due, e)
		return
	}
	heap.Fix(&p.due, e.index)
}

func (s *subnet) unkeep(e *entry) {
	s.kept = slices.DeleteFunc(s.kept, func(k *entry) bool { return k == e })
}

func (p *Pool) drop(e *entry) {
	if e == nil {
		return
	}
	if e.index == notDue {
		e.net.unkeep(e)
	} else {
		heap.Remove(&p.due, e.index)
	}
	delete(p.byIP, e.IP)
	if k := (key{e.MAC, e.net}); p.byMAC[k] == e {
		delete(p.byMAC, k)
	}
	if e.net.inPool(e.IP) {
		e.net.push(e.IP)
	}
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
