package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/pkg/identity"
)

// The protocols on the Raft port, told apart by ALPN.
const (
	protoRaft = "farrier-raft/1"
	protoSide = "farrier-hash/1"

	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 64 // at once; more connections wait in the kernel's queue
	sideTimeout      = 2 * time.Second
)

// Port is the Raft port: it implements raft.StreamLayer and carries side messages. It speaks TLS 1.3 in both directions, and only
// with certificates of this cluster with the role coordinator. An agent's certificate, though of the same CA, gets no byte to
// raft, and neither does one that is refused. It is safe for concurrent use.
type Port struct {
	o      PortOptions
	server *tls.Config
	client *tls.Config

	mu   sync.Mutex // guards open
	open map[*tls.Conn]identity.Peer

	raft   chan net.Conn
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// PortOptions say what a port listens on, and who is told what. The functions may not block.
type PortOptions struct {
	Listener  net.Listener // the port owns it
	Advertise string       // where the others reach it. Default: the listener's address
	Identity  *identity.Store
	Log       *slog.Logger
	// Heard is called for each side message, with who sent it; it reads no more than the message.
	Heard func(member string, message io.Reader)
	// HungUp is called for each connection to raft that a member ended.
	HungUp func(member string)
	// Refuse is why a coordinator is not let in, or nil.
	Refuse func(identity.Peer) error
}

type portAddr string

func (portAddr) Network() string  { return "tcp" }
func (a portAddr) String() string { return string(a) }

// Listen serves the listener until Close.
func Listen(o PortOptions) *Port {
	if o.Advertise == "" {
		o.Advertise = o.Listener.Addr().String()
	}
	s := &Port{
		o: o, open: map[*tls.Conn]identity.Peer{},
		server: identity.ServerTLS(o.Identity, tls.RequireAndVerifyClientCert), client: identity.ClientTLS(o.Identity, identity.RoleCoordinator),
		raft: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes),
	}
	s.server.NextProtos = []string{protoRaft, protoSide}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.serve)
	return s
}

func (s *Port) serve() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := s.o.Listener.Accept()
		if err != nil {
			if s.ctx.Err() == nil {
				s.o.Log.Warn("raft port: accept", "err", err)
				select {
				case <-time.After(100 * time.Millisecond): // out of files, most likely
				case <-s.ctx.Done():
				}
			}
			<-s.slots
			continue
		}
		s.wg.Go(func() { s.admit(c) })
	}
}

// admit finishes the handshake and hands the connection on.
func (s *Port) admit(raw net.Conn) {
	defer func() { <-s.slots }()
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	c := tls.Server(raw, s.server)
	err := c.HandshakeContext(ctx)
	var p identity.Peer
	if err == nil {
		p, err = identity.PeerOf(c.ConnectionState())
	}
	if err == nil {
		err = identity.RequireRole(p, identity.RoleCoordinator)
	}
	if err == nil {
		s.keep(c, p) // before it is asked for: a refusal that begins meanwhile cuts it
		err = s.o.Refuse(p)
	}
	if err != nil {
		s.drop(c)
		s.o.Log.Warn("raft port: refused a connection", "from", raw.RemoteAddr().String(), "err", err)
		raw.Close()
		return
	}
	switch c.ConnectionState().NegotiatedProtocol {
	case protoRaft:
		select {
		case s.raft <- callerConn{c, func() { s.o.HungUp(p.Name) }, func() { s.drop(c) }}:
			return
		case <-s.ctx.Done():
		}
	case protoSide:
		_ = c.SetDeadline(time.Now().Add(sideTimeout)) // a connection that cannot take a deadline fails at the read
		s.o.Heard(p.Name, c)
	}
	s.drop(c)
	c.Close()
}

func (s *Port) keep(c *tls.Conn, p identity.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = p
}

func (s *Port) drop(c *tls.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// CutRefused ends the open connections of those who are refused now.
func (s *Port) CutRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, p := range s.open {
		if err := s.o.Refuse(p); err != nil {
			s.o.Log.Warn("raft port: cut a connection", "from", c.RemoteAddr().String(), "err", err)
			_ = c.NetConn().Close() // at once: its other side is not waited for
		}
	}
}

// Accept implements raft.StreamLayer.
func (s *Port) Accept() (net.Conn, error) {
	select {
	case c := <-s.raft:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements raft.StreamLayer.
func (s *Port) Close() error {
	s.cancel()
	return s.o.Listener.Close()
}

// Wait returns when no goroutine of the port is left. Close comes first.
func (s *Port) Wait() { s.wg.Wait() }

// Addr implements raft.StreamLayer: where the others reach this member.
func (s *Port) Addr() net.Addr { return portAddr(s.o.Advertise) }

// Dial implements raft.StreamLayer.
func (s *Port) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	return s.dial(ctx, string(address), protoRaft)
}

func (s *Port) dial(ctx context.Context, address, proto string) (net.Conn, error) {
	cfg := s.client.Clone()
	cfg.NextProtos = []string{proto}
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
}

// Send delivers a side message to the member at the address; it may be lost.
func (s *Port) Send(ctx context.Context, address string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sideTimeout)
	defer cancel()
	c, err := s.dial(ctx, address, protoSide)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(sideTimeout)) // as above
	_, err = c.Write(message)
	return errors.Join(err, c.Close())
}

// Deserted tells whether nobody listens at the address of another member, and its machine says so itself. A process that is
// just ending may take a connection and reset it. It asks again after each pause; the error is that of a connection that was
// neither refused nor made before ctx ended.
func (s *Port) Deserted(ctx context.Context, address string, pause time.Duration) (bool, error) {
	for {
		c, err := s.dial(ctx, address, protoSide)
		if err == nil {
			c.Close()
			return false, nil
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, err
		}
	}
}

// callerConn is a connection on which another member calls this one.
type callerConn struct {
	net.Conn
	hungUp func()
	closed func()
}

// Close implements net.Conn.
func (c callerConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// Read tells when the other side has ended the connection.
func (c callerConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.hungUp()
	}
	return n, err
}
