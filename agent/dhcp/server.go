package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/lease"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Defaults and bounds.
const (
	DefaultRate  = 1000 // packets a second
	DefaultBurst = 4000 // packets: a rack that powers on at once
	maxPacket    = 1500 // bytes, in and out
	maxOptions   = 64
	relayPort    = 67
	clientPort   = 68
	leaseRenew   = 2 // T1 is lease/2
	minPacket    = 240
)

// Config is what a Server needs. Table, Subnets, Rack.HTTP and Server are required. Rack.Unknown holds while the agent is
// alone in its group: see Complete and Share.
type Config struct {
	Table   *bootenv.Table
	Subnets []lease.Subnet
	Leases  []lease.Lease // from before a restart
	Rack    boot.Rack
	Server  netip.Addr // this agent's address on the boot network: server identifier and next server
	// ReplyPort is where relays listen. Default 67. Machines of a lab that speak as relays use another.
	ReplyPort uint16
	// Proxy leaves addresses to another DHCP server, and answers boot options only (PXE 2.1, proxyDHCP).
	Proxy bool
	// Rate and Burst of all machines together, in packets a second and packets. Defaults DefaultRate, DefaultBurst. Each MAC
	// has a bound of its own besides: a machine gone mad leaves the others theirs.
	Rate, Burst int
	Clock       clock.Clock // default clock.System
	Log         *slog.Logger
	// OnBoot is told when firmware or iPXE asks under a claimed boot attempt: the machine was restarted. Optional;
	// it must not block.
	OnBoot func(bootID string)
}

// Server answers DHCP. It is safe for concurrent use; one Server may serve several sockets.
type Server struct {
	cfg  Config
	log  *slog.Logger
	self net.IP

	complete, shared atomic.Bool

	mu    sync.Mutex // guards pool and limit
	pool  *lease.Pool
	limit limiter
}

// New checks the configuration as a whole.
func New(cfg Config) (*Server, error) {
	if cfg.Table == nil || !cfg.Server.Is4() || cfg.Rack.HTTP == "" {
		return nil, fault.New(fault.Invalid, "dhcp", "table, IPv4 server address and boot server URL are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ReplyPort == 0 {
		cfg.ReplyPort = relayPort
	}
	if cfg.Rate <= 0 {
		cfg.Rate = DefaultRate
	}
	if cfg.Burst <= 0 {
		cfg.Burst = DefaultBurst
	}
	pool, err := lease.New(cfg.Subnets)
	if err != nil {
		return nil, fault.Wrap("dhcp", err)
	}
	pool.Epoch = func(mac [6]byte) uint64 {
		if m, ok := cfg.Table.ByMAC(mac); ok {
			return m.Epoch
		}
		return 0
	}
	now := cfg.Clock.Boottime()
	pool.Restore(cfg.Leases, now)
	return &Server{cfg: cfg, log: cfg.Log, self: cfg.Server.AsSlice(), pool: pool,
		limit: newLimiter(cfg.Rate, cfg.Burst, now)}, nil
}

// Complete says that the table holds all machines of this agent. Until then unknown machines are ignored, whatever the
// policy.
func (s *Server) Complete() {
	if !s.complete.Swap(true) && s.cfg.Rack.Unknown != boot.Ignore && !s.shared.Load() {
		s.log.Info("dhcp: unknown machines are answered", "policy", s.cfg.Rack.Unknown.String())
	}
}

// Share says that another agent of the group lives. Its machines are unknown here, and while it dies they come one
// by one: so unknown machines are ignored from now on, until this process ends.
func (s *Server) Share() {
	if !s.shared.Swap(true) && s.cfg.Rack.Unknown != boot.Ignore {
		s.log.Warn("dhcp: unknown machines are ignored: another agent of the group lives, whose machines they may be; for this policy a group needs to be of one agent",
			"policy", s.cfg.Rack.Unknown.String())
	}
}

func (s *Server) rack() boot.Rack {
	r := s.cfg.Rack
	if !s.complete.Load() || s.shared.Load() {
		r.Unknown = boot.Ignore
	}
	return r
}

// Leases lists the pool's leases, to be journalled and given back as Config.Leases.
func (s *Server) Leases() []lease.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pool.Leases()
}

// Serve answers on conn, port 67, until the context ends; it closes conn.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	return s.loop(ctx, conn, s.answer)
}

// ServeProxy answers on conn, port 4011, where PXE firmware asks a boot server that gave it no address. It closes conn.
func (s *Server) ServeProxy(ctx context.Context, conn net.PacketConn) error {
	return s.loop(ctx, conn, s.answerBootServer)
}

type answerFunc func(packet []byte, from netip.AddrPort, now time.Duration) (reply []byte, to netip.AddrPort)

func (s *Server) loop(ctx context.Context, conn net.PacketConn, answer answerFunc) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	buf := make([]byte, maxPacket+1)
	for {
		n, addr, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fault.New(fault.Internal, "dhcp", "the socket was closed: %w", err)
			}
			s.log.Warn("dhcp: read failed", "err", err)
			continue
		}
		from := addrPort(addr)
		now := s.cfg.Clock.Boottime()
		if n < minPacket || n > maxPacket || !from.IsValid() || !s.allow(buf[:n], now) {
			continue
		}
		reply, to := answer(buf[:n], from, now)
		if reply == nil {
			continue
		}
		if _, err := conn.WriteTo(reply, net.UDPAddrFromAddrPort(to)); err != nil && ctx.Err() == nil {
			s.log.Warn("dhcp: send failed", "to", to, "err", err)
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
