package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/ballot"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/identity"
)

// The protocols on the Raft port, told apart by ALPN.
const (
	protoRaft = "farrier-raft/1"
	protoHash = "farrier-hash/1"

	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 64 // at once; more connections wait in the kernel's queue
	hashTimeout      = 2 * time.Second
)

// stream is the Raft port: TLS 1.3 in both directions, and only for certificates of this cluster with the role
// coordinator. An agent's certificate, though of the same CA, gets no byte to raft, and neither does a revoked one: its open
// connections are cut when this member applies the revocation. A key that this member has not heard of is let in: a member that
// is behind must not lock itself out by its own state.
type stream struct {
	listener net.Listener
	address  streamAddr
	server   *tls.Config
	client   *tls.Config
	log      *slog.Logger
	hashes   func(member string, m ballot.Message)
	hungUp   func(member string)
	record   func(key [32]byte) *state.Certificate // of the roster

	mu   sync.Mutex // guards open
	open map[*tls.Conn]identity.Peer

	raft   chan net.Conn
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type streamAddr string

func (streamAddr) Network() string  { return "tcp" }
func (a streamAddr) String() string { return string(a) }

// newStream serves the listener until Close. hashes is called for each side message, hungUp for each raft connection that a
// member ended; neither may block. record finds a key in the roster, or is nil.
func newStream(l net.Listener, advertise string, id *identity.Store, log *slog.Logger, hashes func(string, ballot.Message), hungUp func(string), record func([32]byte) *state.Certificate) *stream {
	if advertise == "" {
		advertise = l.Addr().String()
	}
	s := &stream{
		listener: l, address: streamAddr(advertise), log: log, hashes: hashes, hungUp: hungUp, record: record, open: map[*tls.Conn]identity.Peer{},
		server: identity.ServerTLS(id, tls.RequireAndVerifyClientCert), client: identity.ClientTLS(id, identity.RoleCoordinator),
		raft: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes),
	}
	s.server.NextProtos = []string{protoRaft, protoHash}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.serve)
	return s
}

func (s *stream) serve() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() == nil {
				s.log.Warn("raft port: accept", "err", err)
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
func (s *stream) admit(raw net.Conn) {
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
		s.keep(c, p) // before it is looked up: a revocation that is applied meanwhile cuts it
		err = s.revoked(p)
	}
	if err != nil {
		s.drop(c)
		s.log.Warn("raft port: refused a connection", "from", raw.RemoteAddr().String(), "err", err)
		raw.Close()
		return
	}
	switch c.ConnectionState().NegotiatedProtocol {
	case protoRaft:
		select {
		case s.raft <- callerConn{c, func() { s.hungUp(p.Name) }, func() { s.drop(c) }}:
			return
		case <-s.ctx.Done():
		}
	case protoHash:
		_ = c.SetDeadline(time.Now().Add(hashTimeout)) // a connection that cannot take a deadline fails at the read
		if m, err := ballot.Read(c); err == nil {
			s.hashes(p.Name, m)
		}
	}
	s.drop(c)
	c.Close()
}

// revoked is the refusal of a key that was taken back.
func (s *stream) revoked(p identity.Peer) error {
	if c := s.record(p.Key); c != nil {
		return state.Admit(c, string(p.Role), p.Name)
	}
	return nil
}

func (s *stream) keep(c *tls.Conn, p identity.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = p
}

func (s *stream) drop(c *tls.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// cutRevoked ends the connections of keys that were taken back.
func (s *stream) cutRevoked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, p := range s.open {
		if err := s.revoked(p); err != nil {
			s.log.Warn("raft port: cut a connection", "from", c.RemoteAddr().String(), "err", err)
			_ = c.NetConn().Close() // at once: its other side is not waited for
		}
	}
}

// Accept implements raft.StreamLayer.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.raft:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements raft.StreamLayer.
func (s *stream) Close() error {
	s.cancel()
	return s.listener.Close()
}

// wait returns when no goroutine of the stream is left. Close comes first.
func (s *stream) wait() { s.wg.Wait() }

// Addr implements raft.StreamLayer: where the others reach this member.
func (s *stream) Addr() net.Addr { return s.address }

// Dial implements raft.StreamLayer.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	return s.dial(ctx, string(address), protoRaft)
}

func (s *stream) dial(ctx context.Context, address, proto string) (net.Conn, error) {
	cfg := s.client.Clone()
	cfg.NextProtos = []string{proto}
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
}

// send implements peers.
func (s *stream) send(ctx context.Context, address string, m ballot.Message) error {
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	c, err := s.dial(ctx, address, protoHash)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(hashTimeout)) // as above
	_, err = c.Write(m.Encode())
	return errors.Join(err, c.Close())
}
