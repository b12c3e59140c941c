package lease

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Range is a run of addresses, both ends included.
type Range struct{ First, Last netip.Addr }

// Subnet is what machines on one link are told.
type Subnet struct {
	Prefix  netip.Prefix
	Pool    []Range       // may be empty: only reserved addresses are given
	Router  netip.Addr    // the zero Addr: none
	DNS     []netip.Addr  // at most 4
	Lease   time.Duration // default DefaultLease
	MaxPool int           // bound on the sum of the ranges; default MaxPool
}

// Defaults and bounds.
const (
	DefaultLease = 30 * time.Minute
	OfferHold    = 30 * time.Second // an offered address waits this long for its request
	Quarantine   = 10 * time.Minute // a declined address is given to nobody
	MaxPool      = 65536            // addresses of one subnet's pool
	MaxSubnets   = 256
)

func (s Subnet) validate() error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "subnet "+s.Prefix.String(), format, args...).
			WithHelp("give a prefix as 10.77.0.0/24, and ranges, router and name servers as IPv4 addresses; ranges lie inside the prefix")
	}
	if !s.Prefix.IsValid() || !s.Prefix.Addr().Is4() || s.Prefix.Bits() > 30 || s.Prefix.Bits() < 8 {
		return bad("the prefix must be IPv4, from /8 to /30")
	}
	if s.Router.IsValid() && !s.Prefix.Contains(s.Router) {
		return bad("router %s is outside", s.Router)
	}
	if len(s.DNS) > 4 {
		return bad("more than 4 name servers")
	}
	if s.Lease < 0 || s.Lease > 0 && s.Lease < time.Minute || s.Lease > 7*24*time.Hour {
		return bad("lease %s is not between 1m and 168h", s.Lease)
	}
	total := 0
	for _, r := range s.Pool {
		if !s.Prefix.Contains(r.First) || !s.Prefix.Contains(r.Last) || r.Last.Less(r.First) {
			return bad("range %s-%s is not inside", r.First, r.Last)
		}
		total += int(toInt(r.Last)-toInt(r.First)) + 1
		if total > s.MaxPool {
			return bad("the pool has more than %d addresses", s.MaxPool)
		}
	}
	return nil
}

// usable is false for what a pool must never give: network and broadcast address, and the router.
func (s Subnet) usable(ip netip.Addr) bool {
	n := toInt(ip)
	host := uint32(1)<<(32-s.Prefix.Bits()) - 1
	return n&host != 0 && n&host != host && ip != s.Router
}

func toInt(ip netip.Addr) uint32 { b := ip.As4(); return binary.BigEndian.Uint32(b[:]) }
