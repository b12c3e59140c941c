package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	upstream "github.com/pin/tftp/v3"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Defaults and bounds.
const (
	DefaultPerClient = 64   // transfers of one address
	DefaultTotal     = 2000 // transfers
	maxName          = 256  // bytes
	maxBlock         = 1468 // bytes: fits an Ethernet frame
	ackTries         = 5
	// DefaultAckTimeout is how long a block waits for its acknowledgement before it is sent again.
	DefaultAckTimeout = time.Second
)

// Config is what a Server needs.
type Config struct {
	// Files are the boot programs by name, without a leading slash. Not to be changed after New.
	Files map[string][]byte
	// Script makes a file that Files lacks: an iPXE script by the machine's MAC. Optional. It must not block.
	Script func(name string) ([]byte, bool)
	// PerClient and Total bound the transfers at once. Defaults DefaultPerClient, DefaultTotal.
	PerClient, Total int
	AckTimeout       time.Duration // default DefaultAckTimeout; a block is sent 5 times
	Log              *slog.Logger
}

// Server is a TFTP server.
type Server struct {
	cfg Config

	mu     sync.Mutex // guards active, total
	active map[netip.Addr]int
	total  int
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.PerClient <= 0 {
		cfg.PerClient = DefaultPerClient
	}
	if cfg.Total <= 0 {
		cfg.Total = DefaultTotal
	}
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = DefaultAckTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, active: map[netip.Addr]int{}}
}

// Listen opens the socket for Serve: ":69" or "address:port".
func Listen(ctx context.Context, addr string) (net.PacketConn, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", addr)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "listen for TFTP", "%s: %w", addr, err).
			WithHelp("ports below 1024 need CAP_NET_BIND_SERVICE; no other TFTP server may hold the port")
	}
	return conn, nil
}

// Serve answers on conn, port 69, until the context ends; it closes conn and waits for transfers to stop, some seconds at
// most.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	srv := upstream.NewServer(func(name string, rf io.ReaderFrom) error { return s.read(ctx, name, rf) }, nil)
	srv.SetTimeout(s.cfg.AckTimeout)
	srv.SetRetries(ackTries)
	srv.SetBackoff(func(int) time.Duration { return 0 })
	srv.SetBlockSize(maxBlock)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(done); srv.Shutdown() })
	err := srv.Serve(conn)
	if stop() {
		return fault.New(fault.Internal, "tftp", "the socket stopped: %w", err)
	}
	<-done
	return nil
}

// refusal is what a client is told.
type refusal string

func (r refusal) Error() string { return string(r) }

const (
	notFound = refusal("file not found")
	tooMany  = refusal("too many transfers")
)

func (s *Server) read(ctx context.Context, raw string, rf io.ReaderFrom) (err error) {
	out, ok := rf.(upstream.OutgoingTransfer)
	if !ok {
		return notFound
	}
	peer := out.RemoteAddr()
	addr := peer.AddrPort().Addr().Unmap()
	log := s.cfg.Log.With("client", addr.String(), "file", printable(raw))
	if !s.enter(addr) {
		log.Warn("tftp: too many transfers")
		return tooMany
	}
	defer s.leave(addr)
	defer func() { // the library must not take the agent down with it
		if r := recover(); r != nil {
			log.Error("tftp: transfer panicked", "err", fmt.Sprint(r))
			err = errors.New("internal error")
		}
	}()
	name, ok := clean(raw)
	var content []byte
	if ok {
		content, ok = s.content(name)
	}
	if !ok {
		log.Info("tftp: not found")
		return notFound
	}
	out.SetSize(int64(len(content)))
	n, err := rf.ReadFrom(&reader{ctx: ctx, Reader: bytes.NewReader(content)})
	switch {
	case err == nil:
		log.Info("tftp: sent", "bytes", n)
	case strings.Contains(err.Error(), "code="):
		log.Debug("tftp: client stopped the transfer", "bytes", n, "err", err)
	default:
		log.Warn("tftp: transfer failed", "bytes", n, "err", err)
	}
	return err
}

func (s *Server) content(name string) ([]byte, bool) {
	if b, ok := s.cfg.Files[name]; ok {
		return b, true
	}
	if s.cfg.Script != nil {
		return s.cfg.Script(name)
	}
	return nil, false
}

func (s *Server) enter(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= s.cfg.Total || s.active[addr] >= s.cfg.PerClient {
		return false
	}
	s.total++
	s.active[addr]++
	return true
}

func (s *Server) leave(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.active[addr]--; s.active[addr] == 0 {
		delete(s.active, addr)
	}
}

// reader ends when the context does. It hides Seek, so that the size is what SetSize said.
type reader struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, refusal("the rack agent is stopping")
	}
	return r.Reader.Read(p)
}

// clean turns a requested name into a key: backslashes of Windows-minded firmware become slashes, leading slashes go. A name
// with "..", control bytes or more than maxName bytes is no key.
func clean(raw string) (string, bool) {
	name := strings.TrimLeft(strings.ReplaceAll(raw, `\`, "/"), "/")
	if name == "" || len(name) > maxName || strings.Contains(name, "..") {
		return "", false
	}
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return name, true
}

func printable(raw string) string {
	if len(raw) > 80 {
		raw = raw[:80] + "..."
	}
	return strings.ToValidUTF8(raw, "?")
}
