package pid1

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
)

const (
	linkWait   = 30 * time.Second // for a NIC to appear, and for its cable to come up
	dhcpWait   = 5 * time.Second  // for an answer
	leaseFloor = time.Minute      // renewals come no more often
	lowerUp    = 0x10000          // IFF_LOWER_UP: there is a carrier
)

// network brings up the NIC that booted (all, one after the other, when its MAC is unknown) and configures it by
// DHCP. The lease is renewed until ctx ends.
func network(ctx context.Context, bootIf string, log *slog.Logger) error {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			log.Warn("cannot bring up loopback", "err", err)
		}
	}
	for failures := 0; ; failures++ {
		links, err := candidates(ctx, bootIf)
		if err != nil {
			return err
		}
		raise(log)
		for _, l := range links {
			lease, err := configure(ctx, l, log)
			if err == nil {
				go renew(ctx, l, lease, log) // ends with ctx, which ends with the process
				return nil
			}
			log.Warn("no address yet", "nic", l.Attrs().Name, "mac", l.Attrs().HardwareAddr.String(), "err", err)
		}
		if err := (retry.Backoff{Base: time.Second, Max: 10 * time.Second}).Sleep(ctx, failures+1); err != nil {
			return err
		}
	}
}

// cards are the NICs of the machine.
func cards(all []netlink.Link) []netlink.Link {
	var out []netlink.Link
	for _, l := range all {
		if a := l.Attrs(); l.Type() == "device" && len(a.HardwareAddr) == 6 && a.Flags&net.FlagLoopback == 0 {
			out = append(out, l)
		}
	}
	return out
}

// raise brings up every NIC: whether a cable is in one shows only then. They negotiate while the first gets its address.
func raise(log *slog.Logger) {
	all, err := netlink.LinkList()
	if err != nil {
		log.Warn("cannot list the NICs", "err", err)
		return
	}
	for _, l := range cards(all) {
		if err := netlink.LinkSetUp(l); err != nil {
			log.Warn("cannot bring up a NIC: whether it has a cable stays unknown", "nic", l.Attrs().Name, "err", err)
		}
	}
}

// Settle waits until every NIC that is up has a carrier, for as long as auto-negotiation takes: one without a cable gets none.
func Settle(wait time.Duration) {
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all, err := netlink.LinkList()
		if err != nil {
			return
		}
		if !slices.ContainsFunc(cards(all), func(l netlink.Link) bool {
			a := l.Attrs()
			return a.Flags&net.FlagUp != 0 && a.RawFlags&lowerUp == 0
		}) {
			return
		}
	}
}

// candidates waits for the NIC with the MAC, or for any.
func candidates(ctx context.Context, mac string) ([]netlink.Link, error) {
	deadline := time.Now().Add(linkWait)
	for {
		all, err := netlink.LinkList()
		if err != nil {
			return nil, fault.New(fault.Unavailable, "list NICs", "%w", err)
		}
		var any []netlink.Link
		for _, l := range cards(all) {
			if strings.EqualFold(l.Attrs().HardwareAddr.String(), mac) {
				return []netlink.Link{l}, nil
			}
			any = append(any, l)
		}
		if late := time.Now().After(deadline); len(any) > 0 && (mac == "" || late) {
			return any, nil
		} else if late {
			return nil, fault.New(fault.NotFound, "find NIC", "there is none").
				WithHelp("the ramdisk has no driver for this machine's NIC: build it with the module (farrier-ramdisk image --module)")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func configure(ctx context.Context, l netlink.Link, log *slog.Logger) (*nclient4.Lease, error) {
	name := l.Attrs().Name
	if err := netlink.LinkSetUp(l); err != nil {
		return nil, fault.New(fault.Unavailable, "bring up NIC", "%s: %w", name, err)
	}
	if err := waitCarrier(ctx, name); err != nil {
		return nil, err
	}
	c, err := nclient4.New(name, nclient4.WithTimeout(dhcpWait), nclient4.WithRetry(3))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "start DHCP", "%s: %w", name, err)
	}
	defer c.Close()
	lease, err := c.Request(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("farrier-ramdisk")))
	if err != nil {
		return nil, fault.New(fault.Timeout, "ask for an address", "%s: %w", name, err)
	}
	if err := apply(l, lease.ACK); err != nil {
		return nil, err
	}
	log.Info("network is up", "nic", name, "mac", l.Attrs().HardwareAddr.String(), "address", lease.ACK.YourIPAddr.String(),
		"lease", lease.ACK.IPAddressLeaseTime(time.Hour).String())
	return lease, nil
}

func waitCarrier(ctx context.Context, name string) error {
	deadline := time.Now().Add(linkWait)
	for time.Now().Before(deadline) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fault.New(fault.Unavailable, "watch NIC", "%w", err)
		}
		if a := l.Attrs(); a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown && a.RawFlags&lowerUp != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fault.New(fault.Timeout, "wait for the cable", "%s has no carrier", name)
}

// apply sets address, default route and MTU, and writes the name servers.
func apply(l netlink.Link, ack *dhcpv4.DHCPv4) error {
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 {
		_ = netlink.LinkSetMTU(l, int(mtu)) // the default works too
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: mask}}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fault.New(fault.Unavailable, "set address", "%w", err)
	}
	for _, gw := range ack.Router() {
		if gw.IsUnspecified() {
			continue
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw}); err != nil {
			return fault.New(fault.Unavailable, "set route", "%w", err)
		}
		break
	}
	var b strings.Builder
	for _, s := range ack.DNS() {
		b.WriteString("nameserver " + s.String() + "\n")
	}
	if b.Len() > 0 {
		_ = os.MkdirAll("/etc", 0o755)
		_ = os.WriteFile("/etc/resolv.conf", []byte(b.String()), 0o644) // agents are named by address: nothing depends on it
	}
	return nil
}

// renew asks again at half of the lease; the address stays whatever the answer.
func renew(ctx context.Context, l netlink.Link, lease *nclient4.Lease, log *slog.Logger) {
	for {
		t := time.NewTimer(max(lease.ACK.IPAddressLeaseTime(time.Hour)/2, leaseFloor))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		c, err := nclient4.New(l.Attrs().Name, nclient4.WithTimeout(dhcpWait), nclient4.WithRetry(3))
		if err != nil {
			log.Warn("cannot renew the address", "err", err)
			continue
		}
		next, err := c.Renew(ctx, lease)
		c.Close()
		if err != nil {
			log.Warn("address not renewed: keeping it", "err", err)
			continue
		}
		lease = next
	}
}
