package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Bounds of a connection.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10               // bytes
	maxStreams    = 256                    // of one HTTP/2 connection
	streamGrace   = 300 * time.Millisecond // after stopping began, for requests that are nearly done
)

// listeners are the three bound sockets and where others reach them.
type listeners struct {
	api, raft, rack net.Listener
	at              addresses // advertised
	bound           addresses
}

// listen binds all three, or none.
func listen(cfg config.Config) (*listeners, error) {
	l := &listeners{}
	for _, x := range []struct {
		field, address, advertise string
		to                        *net.Listener
		at, bound                 *string
	}{
		{"api", cfg.Listen.API, cfg.Advertise.API, &l.api, &l.at.API, &l.bound.API},
		{"raft", cfg.Listen.Raft, cfg.Advertise.Raft, &l.raft, &l.at.Raft, &l.bound.Raft},
		{"rack", cfg.Listen.Rack, cfg.Advertise.Rack, &l.rack, &l.at.Rack, &l.bound.Rack},
	} {
		ln, err := net.Listen("tcp", x.address)
		if err != nil {
			l.close()
			return nil, fault.New(fault.Unavailable, "listen for "+x.field, "%w", err).WithHelp("set listen.%s in the configuration", x.field)
		}
		*x.to, *x.bound = ln, ln.Addr().String()
		*x.at = advertised(x.advertise, x.address, *x.bound)
	}
	l.at.Name = cfg.Name
	return l, nil
}

// advertised is where others reach a listener: what the configuration says, with the bound port for port 0.
func advertised(advertise, address, bound string) string {
	if advertise == "" {
		advertise = address
	}
	host, port, err := net.SplitHostPort(advertise)
	if err != nil || port != "0" {
		return advertise
	}
	_, chosen, err := net.SplitHostPort(bound)
	if err != nil {
		return bound
	}
	return net.JoinHostPort(host, chosen)
}

func (l *listeners) close() {
	for _, ln := range []net.Listener{l.api, l.raft, l.rack} {
		if ln != nil {
			_ = ln.Close() // closing twice is harmless
		}
	}
}

// serveHTTP serves until ctx ends, then gives requests in work up to wait. Streams are told by their request's
// context, which ends when stopping begins.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler, t *tls.Config, wait time.Duration, log *slog.Logger) error {
	base, cut := context.WithCancel(context.Background())
	defer cut()
	srv := &http.Server{
		Handler: h, TLSConfig: t, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return base },
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(ln, "", "") }() // Shutdown ends it, and its end is awaited below
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	stop := time.AfterFunc(min(wait/5, streamGrace), cut) // streams end by it
	defer stop.Stop()
	err := srv.Shutdown(grace)
	if err != nil {
		log.Warn("requests in work were cut", "err", err)
		err = srv.Close()
	}
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
