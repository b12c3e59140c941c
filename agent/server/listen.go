package server

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"

	"github.com/farrier-project/farrier/agent/config"
	"github.com/farrier-project/farrier/agent/dhcp"
	"github.com/farrier-project/farrier/agent/tftp"
	"github.com/farrier-project/farrier/pkg/fault"
)

// addresses are where others reach the agent; the form of the address file.
type addresses struct {
	Name    string `json:"name"`
	HTTP    string `json:"http"`
	Ramdisk string `json:"ramdisk"`
	DHCP    string `json:"dhcp,omitempty"`
	Proxy   string `json:"proxy,omitempty"` // proxyDHCP's second port
	TFTP    string `json:"tftp,omitempty"`
}

// listeners are the bound sockets. dhcp, proxy and tftp are nil when off.
type listeners struct {
	http, ramdisk     net.Listener
	dhcp, proxy, tftp net.PacketConn
	at                addresses
}

// listen binds all, or none.
func listen(ctx context.Context, cfg config.Config) (_ *listeners, err error) {
	l := &listeners{at: addresses{Name: cfg.Name}}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, x := range []struct {
		field string
		cfg   config.Listener
		to    *net.Listener
		at    *string
	}{{"http", cfg.HTTP, &l.http, &l.at.HTTP}, {"ramdisk", cfg.Ramdisk, &l.ramdisk, &l.at.Ramdisk}} {
		ln, err := net.Listen("tcp", x.cfg.Listen)
		if err != nil {
			return nil, fault.New(fault.Unavailable, "listen for "+x.field, "%w", err).WithHelp("set %s.listen in the configuration", x.field)
		}
		*x.to, *x.at = ln, advertised(x.cfg.Advertise, ln.Addr())
	}
	if cfg.DHCP.Listen != "" {
		if l.dhcp, err = dhcp.Listen(ctx, cfg.DHCP.Interface, cfg.DHCP.Listen); err != nil {
			return nil, err
		}
		l.at.DHCP = l.dhcp.LocalAddr().String()
	}
	if cfg.DHCP.ProxyListen != "" {
		if l.proxy, err = dhcp.Listen(ctx, cfg.DHCP.Interface, cfg.DHCP.ProxyListen); err != nil {
			return nil, err
		}
		l.at.Proxy = l.proxy.LocalAddr().String()
	}
	if cfg.TFTP.Listen != "" {
		if l.tftp, err = tftp.Listen(ctx, cfg.TFTP.Listen); err != nil {
			return nil, err
		}
		l.at.TFTP = l.tftp.LocalAddr().String()
	}
	return l, nil
}

// advertised is the configured address, with the bound port in the place of port 0.
func advertised(advertise string, bound net.Addr) string {
	host, port, err := net.SplitHostPort(advertise)
	if err != nil || port != "0" {
		return advertise
	}
	_, chosen, err := net.SplitHostPort(bound.String())
	if err != nil {
		return bound.String()
	}
	return net.JoinHostPort(host, chosen)
}

// close closes what is open; closing twice is harmless.
func (l *listeners) close() {
	for _, ln := range []net.Listener{l.http, l.ramdisk} {
		if ln != nil {
			_ = ln.Close() // a server may have closed it
		}
	}
	for _, c := range []net.PacketConn{l.dhcp, l.proxy, l.tftp} {
		if c != nil {
			_ = c.Close() // a server may have closed it
		}
	}
}

// writeJSON replaces the file as a whole.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it has its name
	if _, err := f.Write(append(data, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
