package dhcp

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Listen opens a UDP socket for Serve or ServeProxy. With an interface it is bound to it and may broadcast, which needs
// CAP_NET_RAW before Linux 5.7 and CAP_NET_BIND_SERVICE for ports below 1024; without one only relayed requests
// and renewals can be answered. addr is ":67" or "address:port".
func Listen(ctx context.Context, iface, addr string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		ctlErr := c.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil || iface == "" {
				return
			}
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return
			}
			err = unix.BindToDevice(int(fd), iface)
		})
		if ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	conn, err := lc.ListenPacket(ctx, "udp4", addr)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "listen for DHCP", "%s on interface %q: %w", addr, iface, err).
			WithHelp("ports below 1024 need CAP_NET_BIND_SERVICE; an interface must exist and be up; no other DHCP server may hold the port")
	}
	return conn, nil
}
