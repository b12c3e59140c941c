package connlimit

import (
	"net"
	"net/netip"
	"sync"
)

// Defaults.
const (
	DefaultTotal     = 10000 // connections
	DefaultPerClient = 256   // connections of one address
)

// New bounds a listener; zero means the default. Accept and Close may be called concurrently, as with ln.
func New(ln net.Listener, total, perClient int) net.Listener {
	if total <= 0 {
		total = DefaultTotal
	}
	if perClient <= 0 {
		perClient = DefaultPerClient
	}
	return &listener{Listener: ln, max: total, perClient: perClient, clients: map[netip.Addr]int{}}
}

type listener struct {
	net.Listener
	max, perClient int

	mu      sync.Mutex // guards the rest
	total   int
	clients map[netip.Addr]int
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := addrOf(c)
		if !l.enter(addr) {
			c.Close()
			continue
		}
		leave := sync.OnceFunc(func() { l.leave(addr) })
		if tcp, ok := c.(*net.TCPConn); ok {
			return &tcpConn{TCPConn: tcp, leave: leave}, nil
		}
		return &conn{Conn: c, leave: leave}, nil
	}
}

func addrOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{} // all others share one count
}

func (l *listener) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.max || l.clients[a] >= l.perClient {
		return false
	}
	l.total++
	l.clients[a]++
	return true
}

func (l *listener) leave(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.clients[a]--; l.clients[a] == 0 {
		delete(l.clients, a)
	}
}

// tcpConn keeps the methods of a TCP connection, ReadFrom above all: files go out by sendfile.
type tcpConn struct {
	*net.TCPConn
	leave func()
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}

type conn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
