package imagecache

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

const maxRedirects = 5

// newClient is the one client that fetches. It has no cookies, no proxy and no credentials. The address policy is applied to
// the address that is dialled, after names are resolved, so a name cannot mean one address to a check and another to
// the connection.
func newClient(cfg Config) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fault.New(fault.Denied, "download", "address %q", address)
		}
		return cfg.allowed(ap.Addr().Unmap())
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConns:           cfg.Downloads,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case len(via) >= maxRedirects:
				return fault.New(fault.Denied, "download", "more than %d redirects", maxRedirects).WithHelp("give the URL that the file is at")
			case req.URL.Scheme != via[0].URL.Scheme:
				return fault.New(fault.Denied, "download", "a redirect from %s to %s is refused", via[0].URL.Scheme, req.URL.Scheme).
					WithHelp("give the URL that the server redirects to")
			case req.URL.User != nil:
				return fault.New(fault.Denied, "download", "a redirect that carries a password is refused").
					WithHelp("the agent sends no credentials: the file must be readable without")
			}
			req.Header.Del("Referer")
			return nil
		},
	}
}

func (cfg Config) allowed(ip netip.Addr) error {
	for _, p := range cfg.Allow {
		if p.Contains(ip) {
			return nil
		}
	}
	refused := ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() ||
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	for _, p := range cfg.Deny {
		refused = refused || p.Contains(ip)
	}
	if refused {
		return fault.New(fault.Denied, "download", "address %s is not allowed as an image source", ip).
			WithHelp("serve the image from another address, or list the network as allowed in the agent's image cache configuration")
	}
	return nil
}
