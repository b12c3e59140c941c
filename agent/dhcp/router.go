package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	icmpRouterSolicitation  = 133
	icmpRouterAdvertisement = 134
	allNodes                = "ff02::1"
	allRouters              = "ff02::2"
)

// advertisement says that there is a neighbour, no router (lifetime 0), no prefix and no other configuration (RFC 4861
// section 4.2). The kernel fills in the checksum.
var advertisement = [16]byte{0: icmpRouterAdvertisement, 4: 64} // read-only

// ServeRouterAdvertisements answers router solicitations on an interface until the context ends. It needs
// CAP_NET_RAW.
func ServeRouterAdvertisements(ctx context.Context, iface string, log *slog.Logger) error {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return fault.New(fault.Invalid, "advertise router", "interface %q: %w", iface, err).WithHelp("name an interface that exists, or none")
	}
	f, err := openICMP(ifi)
	if err != nil {
		return fault.New(fault.Unavailable, "advertise router", "interface %s: %w", iface, err).WithHelp("raw sockets need CAP_NET_RAW")
	}
	conn, err := net.FilePacketConn(f)
	f.Close() // conn has its own copy
	if err != nil {
		return fault.Wrap("advertise router", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	return answerSolicitations(ctx, conn, &net.IPAddr{IP: net.ParseIP(allNodes), Zone: iface}, log)
}

func openICMP(ifi *net.Interface) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, err
	}
	filter := unix.ICMPv6Filter{} // a set bit blocks its type
	for i := range filter.Data {
		filter.Data[i] = ^uint32(0)
	}
	filter.Data[icmpRouterSolicitation>>5] &^= 1 << (icmpRouterSolicitation & 31)
	mreq := unix.IPv6Mreq{Interface: uint32(ifi.Index)}
	copy(mreq.Multiaddr[:], net.ParseIP(allRouters))
	err = errors.Join(
		unix.BindToDevice(fd, ifi.Name),
		unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter),
		unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &mreq),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255), // receivers drop any other (RFC 4861 section 6.1.2)
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
	)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "icmpv6"), nil
}

// answerSolicitations reads solicitations and sends the advertisement to all nodes, at most ten times a second: one
// answer serves every machine on the link.
func answerSolicitations(ctx context.Context, conn net.PacketConn, to net.Addr, log *slog.Logger) error {
	buf := make([]byte, maxPacket)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		n, _, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fault.Wrap("advertise router", err)
		}
		if n < 8 || buf[0] != icmpRouterSolicitation || buf[1] != 0 {
			continue
		}
		if _, err := conn.WriteTo(advertisement[:], to); err != nil && ctx.Err() == nil {
			log.Warn("dhcp: router advertisement failed", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
