package httpboot

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/farrier-project/farrier/pkg/connlimit"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Bounds of the plain HTTP server.
const (
	readHeader  = 5 * time.Second
	idle        = 60 * time.Second
	maxHeader   = 16 << 10 // bytes
	stopTimeout = 3 * time.Second
)

// Serve answers on ln, within the bounds of connlimit, until the context ends, and gives running requests three seconds to finish. It closes ln.
func (h *Handler) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: readHeader, IdleTimeout: idle, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(h.cfg.Log.Handler(), slog.LevelDebug)}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(c) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(connlimit.New(ln, 0, 0))
	if stop() {
		return fault.New(fault.Internal, "http boot", "the listener stopped: %w", err)
	}
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fault.Wrap("http boot", err)
}
