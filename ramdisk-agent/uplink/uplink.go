package uplink

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/retry"
	"github.com/farrier-project/farrier/ramdisk-agent/cmdline"
)

// Times and bounds.
const (
	dialTimeout   = 5 * time.Second
	hastyDial     = time.Second      // while another agent may answer: a machine without power refuses nothing
	callTimeout   = 10 * time.Second // of a heartbeat or a lookup
	reportTimeout = 30 * time.Second // the agent answers when the outcome is committed
	pollWait      = 25 * time.Second // of NextCommand
	manifestTime  = 60 * time.Second
	maxAgents     = 16
	maxAnswer     = 192 << 20 // bytes: the manifest of a 16 TiB image
	minRenew      = time.Minute
)

// Machine says who asks.
type Machine struct {
	MACs             []string
	UUID, Serial     string // SMBIOS
	Version          string // of this program
	BootID, BootCode string // the boot attempt and its secret
}

// Config is what an Uplink needs.
type Config struct {
	Machine Machine
	Agents  []string   // URLs from the command line
	Pins    [][32]byte // keys that they may have
	Key     crypto.Signer
	Dialer  *net.Dialer // its LocalAddr is where connections come from
	Log     *slog.Logger
}

// Uplink talks to one agent at a time, the same for all calls. It is safe for concurrent use.
type Uplink struct {
	cfg Config
	csr []byte

	mu      sync.Mutex // guards the rest
	agents  []*agent
	current int
	cert    *tls.Certificate
	node    string
	renewAt time.Time // by the monotonic clock; zero: no certificate yet
	seq     uint64
	turns   int // to another agent since one answered

	lookup sync.Mutex // held while a lookup is under way, so that there is one at a time
}

// agent is one way up. Immutable once made, but for httpURL and name, which mu of Uplink guards.
type agent struct {
	name       string
	ramdiskURL string
	httpURL    string
	pins       [][32]byte
	rpc        farrierv1connect.RamdiskServiceClient
	tls, plain *http.Client
}

// New makes an Uplink. It connects to nobody yet.
func New(cfg Config) (*Uplink, error) {
	csr, err := identity.NewCSR(cfg.Key)
	if err != nil {
		return nil, err
	}
	if cfg.Dialer == nil {
		cfg.Dialer = &net.Dialer{}
	}
	cfg.Dialer.Timeout = dialTimeout
	u := &Uplink{cfg: cfg, csr: csr}
	for _, url := range cfg.Agents {
		u.agents = append(u.agents, u.newAgent(url, cfg.Pins))
	}
	if len(u.agents) == 0 || len(cfg.Pins) == 0 {
		return nil, fault.New(fault.Invalid, "make uplink", "no agent or no pin is named")
	}
	return u, nil
}

func (u *Uplink) newAgent(url string, pins [][32]byte) *agent {
	dialer := &tls.Dialer{NetDialer: u.cfg.Dialer, Config: identity.PinnedTLS(u.certificate, pins...)}
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			wait := u.patience()
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			c, err := dialer.DialContext(ctx, network, address)
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
				err = fmt.Errorf("%s does not answer within %v", address, wait)
			}
			return c, err
		},
		ResponseHeaderTimeout: manifestTime,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
		// A dead agent is noticed by a ping that is not answered, not by a poll that stays silent.
		HTTP2: &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: 2 * time.Second},
	}
	c := &http.Client{Transport: transport, CheckRedirect: noRedirect}
	plain := &http.Client{CheckRedirect: noRedirect, Transport: &http.Transport{DialContext: u.cfg.Dialer.DialContext,
		ResponseHeaderTimeout: bodyIdle, IdleConnTimeout: 30 * time.Second, DisableCompression: true}}
	return &agent{ramdiskURL: url, pins: pins, tls: c, plain: plain,
		rpc: farrierv1connect.NewRamdiskServiceClient(c, url, connect.WithReadMaxBytes(maxAnswer))}
}

func noRedirect(*http.Request, []*http.Request) error {
	return fault.New(fault.Denied, "follow redirect", "an agent does not redirect")
}

func (u *Uplink) certificate() *tls.Certificate {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cert
}

// Node is the node that Lookup found, empty before.
func (u *Uplink) Node() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.node
}

func (u *Uplink) at() *agent {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.agents[u.current]
}

// turn goes on to the next agent, unless another call has turned already.
func (u *Uplink) turn(from *agent, why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.agents[u.current] != from {
		return
	}
	u.current = (u.current + 1) % len(u.agents)
	level := slog.LevelWarn
	if u.turns++; u.turns > 10 && u.turns%10 != 0 { // a console is slow, and an outage may be long
		level = slog.LevelDebug
	}
	u.cfg.Log.Log(context.Background(), level, "agent failed: going on with the next", "agent", from.ramdiskURL,
		"next", u.agents[u.current].ramdiskURL, "err", why, "failures", u.turns)
}

// learn takes the group's agents from an answer.
func (u *Uplink) learn(group []*farrierv1.GroupAgent) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, g := range group {
		url := strings.TrimSuffix(g.GetRamdiskUrl(), "/")
		if !strings.HasPrefix(url, "https://") {
			continue
		}
		pins := u.cfg.Pins
		if pin, err := cmdline.ParsePin(g.GetRamdiskPin()); err == nil {
			pins = [][32]byte{pin}
		}
		i := u.indexOf(url)
		if i < 0 {
			if len(u.agents) >= maxAgents {
				continue
			}
			u.agents = append(u.agents, u.newAgent(url, pins))
			i = len(u.agents) - 1
		} else if !slices.Contains(u.agents[i].pins, pins[0]) { // it was started anew, with another key
			u.agents[i].tls.CloseIdleConnections()
			u.agents[i] = u.newAgent(url, pins)
		}
		u.agents[i].name, u.agents[i].httpURL = g.GetName(), strings.TrimSuffix(g.GetHttpUrl(), "/")
	}
}

func (u *Uplink) indexOf(url string) int {
	for i, a := range u.agents {
		if a.ramdiskURL == url {
			return i
		}
	}
	return -1
}

// call tries an RPC on one agent after the other until it is answered, ctx ends, or final says that asking elsewhere
// is no use. tries 0: for ever.
func (u *Uplink) call(ctx context.Context, op string, timeout time.Duration, tries int, f func(context.Context, *agent) error) error {
	for failures := 0; ; {
		a := u.at()
		cctx, cancel := context.WithTimeout(ctx, timeout)
		err := f(cctx, a)
		cancel()
		if err == nil {
			u.answered()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ferr := client.Fault(err)
		if ferr.Kind == fault.Expired || ferr.Kind == fault.Invalid || ferr.Kind == fault.TooLarge {
			return fault.Wrap(op, ferr)
		}
		if ferr.Kind == fault.Unauthenticated && op != opLookup {
			u.forget()
			if _, err := u.Lookup(ctx); err != nil {
				return err
			}
		}
		if failures++; tries > 0 && failures >= tries {
			return fault.Wrap(op, ferr)
		}
		u.turn(a, ferr)
		// A round over all agents is quick, the next ones are spaced.
		if err := (retry.Backoff{Max: 3 * time.Second}).Sleep(ctx, 1+failures/max(u.count(), 1)); err != nil {
			return err
		}
	}
}

// patience is how long a connection may take: longer once all agents were tried twice.
func (u *Uplink) patience() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.agents) > 1 && u.turns < 2*len(u.agents) {
		return hastyDial
	}
	return dialTimeout
}

func (u *Uplink) answered() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turns = 0
}

func (u *Uplink) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.agents)
}

const opLookup = "look up"

func (u *Uplink) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.renewAt = time.Time{}
}

// Lookup proves the boot attempt by its secret and gets the certificate for all else; it asks until an agent answers.
// fault.Expired: the boot attempt is over. It does nothing while the certificate is good.
func (u *Uplink) Lookup(ctx context.Context) (interval time.Duration, err error) {
	u.lookup.Lock()
	defer u.lookup.Unlock()
	u.mu.Lock()
	good := !u.renewAt.IsZero() && time.Now().Before(u.renewAt)
	u.mu.Unlock()
	if good {
		return 0, nil
	}
	m := u.cfg.Machine
	req := &farrierv1.LookupRequest{BootId: m.BootID, Secret: m.BootCode, CsrDer: u.csr, Macs: m.MACs,
		SystemUuid: m.UUID, Serial: m.Serial, Version: m.Version}
	var resp *farrierv1.LookupResponse
	err = u.call(ctx, opLookup, callTimeout, 0, func(ctx context.Context, a *agent) (err error) {
		resp, err = a.rpc.Lookup(ctx, req)
		if err == nil && (len(resp.GetChainDer()) == 0 || resp.GetNode() == "") {
			err = fault.New(fault.Unavailable, "look up", "the answer has no certificate")
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	u.mu.Lock()
	u.cert = &tls.Certificate{Certificate: resp.ChainDer, PrivateKey: u.cfg.Key}
	u.node = resp.Node
	u.renewAt = time.Now().Add(renewAfter(resp.ChainDer[0]))
	for _, a := range u.agents { // a connection shows the certificate that it was opened with
		a.tls.CloseIdleConnections()
	}
	u.mu.Unlock()
	u.learn(resp.Agents)
	return resp.GetHeartbeatInterval().AsDuration(), nil
}

// Renew looks up again when two thirds of the certificate's life have passed, by our own monotonic clock.
func (u *Uplink) Renew(ctx context.Context) error {
	_, err := u.Lookup(ctx)
	return err
}

// wait is how long NextCommand is to wait.
func wait() *durationpb.Duration { return durationpb.New(pollWait) }
