package downlink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/connlimit"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Bounds of the TLS server.
const (
	readHeader  = 5 * time.Second
	readBody    = 15 * time.Second
	idle        = 2 * time.Minute
	maxHeader   = 16 << 10 // bytes
	stopTimeout = 2 * time.Second
)

// Handler serves the RPCs, and images where Config.Images is set. It needs requests that came by the TLS configuration of
// Serve.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	path, rpc := farrierv1connect.NewRamdiskServiceHandler(s, connect.WithReadMaxBytes(maxBody))
	mux.Handle(path, withBody(withPeer(rpc)))
	if s.cfg.Images != nil {
		mux.Handle("/images/", s.cfg.Images)
	}
	return mux
}

// Serve answers on ln by TLS 1.3, client certificates optional, within the bounds of connlimit, until the context ends. It closes ln.
func (s *Service) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: s.Handler(), TLSConfig: identity.ServerTLS(s.cfg.Store, tls.VerifyClientCertIfGiven),
		ReadHeaderTimeout: readHeader, IdleTimeout: idle, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // strangers' handshakes
		BaseContext: func(net.Listener) context.Context { return base },  // waiting calls end with the service
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(c) != nil {
			srv.Close()
		}
	})
	err := srv.ServeTLS(connlimit.New(ln, 0, 0), "", "")
	if stop() {
		return fault.New(fault.Internal, "ramdisk server", "the listener stopped: %w", err)
	}
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fault.Wrap("ramdisk server", err)
}

// withBody reads the request's body within its time and size. A ReadTimeout of the server would do it too, but it also ends
// HTTP/1.1 calls that wait longer than it.
func withBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(readBody)) // a writer that cannot is not a socket's
		b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1<<10))
		if err != nil {
			w.Header().Set("Connection", "close")
			http.Error(w, "The request's body did not arrive.", http.StatusRequestTimeout)
			return
		}
		_ = rc.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(b))
		next.ServeHTTP(w, r)
	})
}

type peerKey struct{}

// withPeer puts the verified peer, if there is one, into the request's context.
func withPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			if p, err := identity.PeerOf(*r.TLS); err == nil {
				r = r.WithContext(context.WithValue(r.Context(), peerKey{}, p))
			}
		}
		next.ServeHTTP(w, r)
	})
}

func peerOf(ctx context.Context) (identity.Peer, error) {
	p, ok := ctx.Value(peerKey{}).(identity.Peer)
	if !ok {
		return p, fault.New(fault.Unauthenticated, "check certificate", "the caller sent none").WithHelp("call Lookup first, and use the certificate that it gives")
	}
	return p, identity.RequireRole(p, identity.RoleRamdisk)
}

// caller finds the boot attempt that a ramdisk's certificate is for. halt says that the attempt is over. A ramdisk that
// another agent of the group let in claims its attempt here by its certificate.
func (s *Service) caller(ctx context.Context, bootID string) (a *attempt, halt bool, err error) {
	p, err := peerOf(ctx)
	if err != nil {
		return nil, false, err
	}
	if p.Boot != bootID || p.Group != s.self.Group {
		return nil, false, fault.New(fault.Denied, "check certificate", "it is for another boot attempt or group")
	}
	a, halt, edges, err := s.attemptOf(p)
	s.emit(edges)
	if len(edges) > 0 && a != nil && !a.revoked {
		s.cfg.OnClaim(a.id)
	}
	return a, halt, err
}

func (s *Service) attemptOf(p identity.Peer) (*attempt, bool, []*farrierv1.Edge, error) {
	now := s.clock.Boottime()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.boots[p.Boot]
	if a == nil || a.node != p.Name {
		_, closed := s.closed[p.Boot]
		if closed || s.nodes[p.Name] != nil {
			return nil, true, nil, nil // over, or the node is here under another boot attempt
		}
		return nil, false, nil, fault.New(fault.Unavailable, "find boot attempt", "node %s is not assigned to this agent", p.Name).
			WithHelp("ask the other agents of the group, then this one again")
	}
	if a.revoked {
		return a, true, nil, nil
	}
	if a.claimed && a.key != p.Key {
		return a, true, s.second(a, p.Key, now), nil
	}
	if !a.claimed {
		a.claim(p.Key)
		a.claimAt = now
		return a, false, []*farrierv1.Edge{a.edge(edgeFirstContact, "by a certificate of another agent of the group")}, nil
	}
	return a, false, nil, nil
}

// connectError is the only place where a kind becomes a code.
func connectError(err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return connect.NewError(connect.CodeInternal, errors.New("internal error; the agent's log says more"))
	}
	ce := connect.NewError(connectCode(f.Kind), errors.New(f.Error()))
	if d, derr := connect.NewErrorDetail(&farrierv1.ErrorDetail{Kind: f.Kind.String(), Message: f.Error(), Help: f.Help}); derr == nil {
		ce.AddDetail(d)
	}
	return ce
}

func connectCode(k fault.Kind) connect.Code {
	switch k {
	case fault.Invalid:
		return connect.CodeInvalidArgument
	case fault.NotFound:
		return connect.CodeNotFound
	case fault.Unauthenticated:
		return connect.CodeUnauthenticated
	case fault.Denied:
		return connect.CodePermissionDenied
	case fault.Expired, fault.StaleToken:
		return connect.CodeFailedPrecondition
	case fault.TooLarge, fault.Busy:
		return connect.CodeResourceExhausted
	case fault.Timeout:
		return connect.CodeDeadlineExceeded
	case fault.Unavailable:
		return connect.CodeUnavailable
	default:
		return connect.CodeInternal
	}
}
