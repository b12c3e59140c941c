package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/retry"
)

// The headers of a request id, and the bounds of a call.
const (
	headerClient = "Farrier-Client"
	headerSeq    = "Farrier-Seq"

	// ServersFile is the file in a configuration directory that lists API addresses, one a line.
	ServersFile = "servers"

	defaultPatience = 15 * time.Second
	quietAfter      = 500 * time.Millisecond // without a frame a ping is sent
	pingWait        = time.Second            // a coordinator that does not answer it is gone, and the next is asked
	hastyDial       = 500 * time.Millisecond // for a connection, while not all coordinators were tried
	patientDial     = 3 * time.Second        // after that: they may be far away, or busy
	maxMessage      = 16 << 20
	laneSpan        = 64 // answers of a client session that the cluster keeps, the newest
	unknownTries    = 3  // of a call whose outcome is unknown: the repeat is answered, or refused for good
)

// Config is what New needs.
type Config struct {
	Identity  *identity.Store // an operator's certificate
	Addresses []string        // host:port of coordinators' APIs
	// Patience is how long a call without a deadline of its own goes on trying while coordinators do not answer or
	// have no leader. Default 15 s.
	Patience time.Duration
}

// Client calls coordinators. It is safe for concurrent use.
type Client struct {
	Nodes        farrierv1connect.NodeServiceClient
	Ports        farrierv1connect.PortServiceClient
	Locks        farrierv1connect.LockServiceClient
	Rings        farrierv1connect.RingServiceClient
	Agents       farrierv1connect.AgentServiceClient
	Cluster      farrierv1connect.ClusterServiceClient
	Certificates farrierv1connect.CertificateServiceClient

	watch     farrierv1connect.WatchServiceClient
	cert      certificate
	servers   string // the file that the addresses came from, if any
	lanes     lanes
	patience  time.Duration
	endpoints *endpoints
	http      *http.Client
}

// Open makes a client from a configuration directory: an identity (key.pem, cert.pem, ca.pem) and the file `servers`. It
// keeps both true: it renews the certificate, and writes the addresses of members that joined since.
func Open(dir string) (*Client, error) {
	store, err := identity.OpenStore(dir)
	if err != nil {
		return nil, fault.Wrap("open "+dir, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, ServersFile))
	if err != nil {
		return nil, fault.New(fault.NotFound, "open "+dir, "%w", err).WithHelp("write the API addresses of the coordinators into %s, one a line", filepath.Join(dir, ServersFile))
	}
	c, err := New(Config{Identity: store, Addresses: strings.Fields(string(data))})
	if err == nil {
		c.servers = filepath.Join(dir, ServersFile)
	}
	return c, err
}

// New makes a client. Close it when done.
func New(cfg Config) (*Client, error) {
	if cfg.Identity == nil || len(cfg.Addresses) == 0 {
		return nil, fault.New(fault.Invalid, "make client", "it needs an identity and at least one address")
	}
	for _, a := range cfg.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fault.New(fault.Invalid, "make client", "address %q is not host:port", a)
		}
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	e := &endpoints{addresses: cfg.Addresses, dialer: tls.Dialer{
		NetDialer: &net.Dialer{KeepAlive: 15 * time.Second}, Config: identity.ClientTLS(cfg.Identity, identity.RoleCoordinator)}}
	transport := &http.Transport{
		DialTLSContext:    e.dial,
		ForceAttemptHTTP2: true,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: quietAfter, PingTimeout: pingWait},
		IdleConnTimeout:   time.Minute,
	}
	c := &Client{patience: cfg.Patience, endpoints: e, http: &http.Client{Transport: transport}, cert: certificate{store: cfg.Identity}}
	opts := []connect.ClientOption{connect.WithInterceptors(connect.UnaryInterceptorFunc(c.unary)), connect.WithReadMaxBytes(maxMessage)}
	doer := doer{c}
	const base = "https://farrier.invalid" // doer puts an address in its place
	c.Nodes = farrierv1connect.NewNodeServiceClient(doer, base, opts...)
	c.Ports = farrierv1connect.NewPortServiceClient(doer, base, opts...)
	c.Locks = farrierv1connect.NewLockServiceClient(doer, base, opts...)
	c.Rings = farrierv1connect.NewRingServiceClient(doer, base, opts...)
	c.Agents = farrierv1connect.NewAgentServiceClient(doer, base, opts...)
	c.Cluster = farrierv1connect.NewClusterServiceClient(doer, base, opts...)
	c.Certificates = farrierv1connect.NewCertificateServiceClient(doer, base, opts...)
	c.watch = farrierv1connect.NewWatchServiceClient(doer, base, connect.WithReadMaxBytes(maxMessage))
	c.cert.join = farrierv1connect.NewJoinServiceClient(doer, base, connect.WithReadMaxBytes(maxMessage))
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// lane is one client session: request ids are numbered within it.
type lane struct {
	id   string
	next uint64   // the sequence of the next call
	open []uint64 // of the calls under way, ascending
}

// lanes are the client sessions of a Client. The cluster keeps the newest laneSpan answers of a session and refuses what
// is older than those, whether it was executed or not. A call may be long under way while others are answered, so that a
// session hands out no sequence that is laneSpan or more above its oldest call under way: the Client opens another.
type lanes struct {
	mu  sync.Mutex
	all []*lane
}

// enter begins a call and names its session and sequence. The call ends with leave.
func (ls *lanes) enter() (*lane, uint64) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.all {
		if len(l.open) == 0 || l.next < l.open[0]+laneSpan {
			return l, l.begin()
		}
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	l := &lane{id: hex.EncodeToString(id[:]), next: 1}
	ls.all = append(ls.all, l)
	return l, l.begin()
}

func (l *lane) begin() uint64 {
	seq := l.next
	l.next++
	l.open = append(l.open, seq)
	return seq
}

func (ls *lanes) leave(l *lane, seq uint64) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if i, ok := slices.BinarySearch(l.open, seq); ok {
		l.open = slices.Delete(l.open, i, i+1)
	}
}

// endpoints is the list of coordinators and the one in use.
type endpoints struct {
	dialer tls.Dialer

	mu        sync.Mutex
	addresses []string
	current   int
	refused   int // connections that failed since the last that did not
}

// wait is how long the next connection may take.
func (e *endpoints) wait() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refused < len(e.addresses)-1 {
		return hastyDial
	}
	return patientDial
}

// dial connects to a coordinator. One whose machine is gone answers nothing at all, and is left soon for the next.
func (e *endpoints) dial(ctx context.Context, network, address string) (net.Conn, error) {
	wait := e.wait()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c, err := e.dialer.DialContext(ctx, network, address)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.refused = 0
		return c, nil
	}
	e.refused++
	if ctx.Err() == context.DeadlineExceeded {
		return nil, fmt.Errorf("%s does not answer within %v", address, wait)
	}
	return nil, err
}

func (e *endpoints) pick() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addresses[e.current]
}

// failed moves on, unless somebody else has.
func (e *endpoints) failed(address string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.addresses[e.current] == address {
		e.current = (e.current + 1) % len(e.addresses)
	}
}

// learn makes the members' addresses the list. The one in use stays in use; it stays in the list, first, if it is none
// of theirs: it may be a way through a tunnel. The list is empty if nothing changed.
func (e *endpoints) learn(from string, members []string) (list []string, changed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list = members
	if !slices.Contains(members, from) {
		list = append([]string{from}, members...)
	}
	if slices.Equal(slices.Sorted(slices.Values(list)), slices.Sorted(slices.Values(e.addresses))) {
		return nil, false
	}
	using := e.addresses[e.current]
	e.addresses, e.current = list, max(slices.Index(list, using), 0)
	return list, true
}

// doer sends a request to the endpoint in use.
type doer struct{ c *Client }

// Do implements connect.HTTPClient.
func (d doer) Do(req *http.Request) (*http.Response, error) {
	if err := d.c.cert.check(); err != nil {
		return nil, err
	}
	address := d.c.endpoints.pick()
	req.URL.Host, req.Host = address, address
	res, err := d.c.http.Do(req)
	if err != nil {
		if req.Context().Err() == nil {
			d.c.endpoints.failed(address)
		}
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	if res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusBadGateway {
		d.c.endpoints.failed(address)
	}
	d.c.learn(address, res.Header)
	return res, nil
}

// unary gives a changing call its request id and repeats what may be repeated.
func (c *Client) unary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		numbered := req.Spec().IdempotencyLevel != connect.IdempotencyNoSideEffects
		if numbered {
			l, seq := c.lanes.enter()
			defer c.lanes.leave(l, seq)
			req.Header().Set(headerClient, l.id)
			req.Header().Set(headerSeq, strconv.FormatUint(seq, 10))
		}
		err = c.repeat(ctx, numbered, func() (final bool, err error) {
			res, err = next(ctx, req)
			return false, err
		})
		if err != nil {
			return nil, err
		}
		return res, nil
	}
}

// repeat tries until a try succeeds, fails for good or is final, until the caller's deadline or, without one, until
// coordinators have not answered for as long as patience. A numbered try may have been heard, and is safe to repeat.
func (c *Client) repeat(ctx context.Context, numbered bool, try func() (final bool, err error)) error {
	_, bounded := ctx.Deadline()
	var outage time.Time // when coordinators last stopped answering
	var last error       // why the try before failed: it says more than that time is up
	for failures := 1; ; failures++ {
		began := time.Now()
		final, err := try()
		if err == nil {
			c.cert.renew(ctx)
			return nil
		}
		kind := Fault(err).Kind
		if kind == fault.Timeout && bounded { // whoever noticed first, this side or a coordinator
			switch {
			case told(err) && !told(last):
				return late(err)
			case last == nil:
				return err
			case numbered: // this try may have been heard
				return late(last)
			}
			return last
		}
		if final || !repeatable(kind) && !(numbered && kind == fault.UnknownOutcome && failures <= unknownTries) {
			return err
		}
		if last == nil || told(err) {
			last = err
		}
		if outage.IsZero() || time.Since(began) > max(c.patience, defaultPatience) { // that try was being worked on, not refused
			outage = time.Now()
		}
		if !bounded && time.Since(outage) > c.patience || (retry.Backoff{}).Sleep(ctx, failures) != nil {
			return last
		}
	}
}

// told tells whether a coordinator said what is wrong: that is worth more than that another could not be reached.
func told(err error) bool {
	var ce *connect.Error
	return errors.As(err, &ce) && len(ce.Details()) > 0
}

// repeatable tells whether another try may succeed. A repeated request id makes it safe.
func repeatable(k fault.Kind) bool {
	switch k {
	case fault.NotLeader, fault.NoQuorum, fault.Unavailable:
		return true
	default:
		return false
	}
}
