package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
)

// Times and bounds of a stream.
const (
	DefaultRenew = 500 * time.Millisecond // until the coordinator says otherwise
	GreetWait    = 3 * time.Second        // from dialling to welcome or redirect
	DefaultStale = 3 * time.Second        // without an acknowledged renewal the stream is given up

	// A leader whose machine is gone ends no connection. The next one gives each session its full time, about a second
	// after the loss: the agent must have noticed, and found it, before that is over.
	quietAfter = 500 * time.Millisecond // without a frame: a ping is sent, which a live process answers however busy it is
	pingWait   = time.Second

	maxRedirects = 4       // in a row, before back-off
	maxBatch     = 512     // messages in one ConnectRequest
	maxBytes     = 4 << 20 // of one ConnectRequest, unless one message alone is larger; the coordinators read 16 MiB
	fieldBytes   = 8       // at most, around one message in another
	maxRunning   = 10_000  // attempts named in hello
	maxMessage   = 8 << 20 // bytes of one ConnectResponse
	summaryEvery = time.Second
)

// Config is what an Uplink needs.
type Config struct {
	Agent, Group string
	Drivers      []string
	Weight       uint32
	Version      string
	Level        uint32 // feature level spoken
	RamdiskURL   string
	HTTPURL      string
	RamdiskPin   string
	JournalID    [16]byte
	Incarnation  uint64
	Addresses    []string // of coordinators' rack listeners, host:port; see SetAddresses
	TLS          *tls.Config
	Clock        clock.Clock
	Log          *slog.Logger
	Backoff      retry.Backoff // default 100 ms to 1 s
	Stale        time.Duration // default DefaultStale

	// Heartbeats says how many ramdisks beat since it was last asked, and which. Optional.
	Heartbeats func() (beats uint32, boots []string)
	// Welcomed is told the ramdisks' heartbeat and silence of this cluster. Optional.
	Welcomed func(heartbeat, silence time.Duration)
	// Confirmed is told of each outcome that is committed, or came too late to matter. Optional.
	Confirmed func(work.Ref)
	// Synced is told that every assignment of a new stream has been taken in. Optional.
	Synced func()
	// Revoked is told the keys of coordinators that are believed no more, by their SHA-256. Optional.
	Revoked func(keys [][32]byte)
	// GroupChanged is told the live agents of the group, this one included. Optional.
	GroupChanged func([]GroupAgent)
}

// GroupAgent is one live agent of the group.
type GroupAgent struct{ Name, RamdiskURL, HTTPURL, RamdiskPin string }

// Uplink is the agent's side of the stream.
type Uplink struct {
	cfg   Config
	http  *http.Client
	out   outbox
	calls calls
	seq   uint64 // of renewals; used by the sender only

	addresses atomic.Pointer[[]string] // never changed once stored
}

// SetAddresses says where the coordinators are now. It counts from the next stream on.
func (u *Uplink) SetAddresses(addresses []string) {
	addresses = slices.Clone(addresses)
	u.addresses.Store(&addresses)
}

// New makes an Uplink. Run must be running for anything to go up.
func New(cfg Config) *Uplink {
	if cfg.Backoff.Base == 0 {
		cfg.Backoff = retry.Backoff{Base: 100 * time.Millisecond, Max: time.Second}
	}
	if cfg.Stale == 0 {
		cfg.Stale = DefaultStale
	}
	dialer := &net.Dialer{Timeout: GreetWait}
	u := &Uplink{cfg: cfg, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true, DialContext: dialer.DialContext,
		TLSHandshakeTimeout: GreetWait, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
		HTTP2: &http.HTTP2Config{SendPingTimeout: quietAfter, PingTimeout: pingWait},
	}}}
	u.SetAddresses(cfg.Addresses)
	u.out.init()
	u.calls.init(&u.out)
	return u
}

// Run keeps a stream to the leader until ctx ends.
func (u *Uplink) Run(ctx context.Context, m *task.Manager) error {
	turn := turns{addresses: *u.addresses.Load()}
	if len(turn.addresses) == 0 {
		return fault.New(fault.Invalid, "connect", "no coordinator's address is known").
			WithHelp("name them in the agent's configuration under coordinators")
	}
	defer u.http.CloseIdleConnections()
	failures, redirects := 0, 0
	addr := turn.next()
	for {
		welcomed, leader, err := u.stream(ctx, addr, m)
		u.out.close()
		m.Handle(work.Lost{})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if welcomed {
			failures, redirects = 0, 0
			turn.lost(addr)
			u.cfg.Log.Warn("stream to the leader lost", "coordinator", addr, "err", err)
		}
		if leader != "" && leader != addr && redirects < maxRedirects {
			redirects++
			addr = leader
			continue
		}
		redirects = 0
		failures++
		if !welcomed && (failures == 1 || failures%20 == 0) {
			u.cfg.Log.Info("no session yet", "coordinator", addr, "failures", failures, "err", err)
		}
		turn.addresses = *u.addresses.Load()
		addr = turn.next()
		if u.cfg.Backoff.Sleep(ctx, failures) != nil {
			return ctx.Err()
		}
	}
}

// turns goes round the coordinators' addresses. The one that was lost last is left out for two rounds: asking a machine
// that is silent takes longer than a session lasts.
type turns struct {
	addresses []string
	at        int
	avoid     string
	left      int // addresses to be asked before avoid is
}

func (t *turns) lost(address string) { t.avoid, t.left = address, 2*(len(t.addresses)-1) }

func (t *turns) next() string {
	for range t.addresses {
		a := t.addresses[t.at%len(t.addresses)]
		t.at++
		if a != t.avoid || t.left <= 0 {
			t.left--
			return a
		}
	}
	return t.avoid // it is all there is
}

var errRedirected = errors.New("this coordinator does not lead")

// stream is one stream's life.
func (u *Uplink) stream(ctx context.Context, addr string, m *task.Manager) (welcomed bool, leader string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := farrierv1connect.NewRackServiceClient(u.http, "https://"+addr, connect.WithReadMaxBytes(maxMessage))
	greet := time.AfterFunc(GreetWait, func() {
		cancel(fault.New(fault.Timeout, "connect", "no answer from %s within %v", addr, GreetWait))
	})
	defer greet.Stop()
	s, err := client.Connect(ctx)
	if err != nil {
		return false, "", err
	}
	// HTTP/2 notices the context's end, and Receive returns, only when no more is to be written.
	defer context.AfterFunc(ctx, func() { _ = s.CloseRequest() })()
	defer cancel(nil)
	u.out.open()
	m.Handle(work.Greeted{})
	said, rest := u.hello(m.Holding())
	for _, o := range rest {
		u.Report(o)
	}
	hello := &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Hello{Hello: said}}
	if err := s.Send(&farrierv1.ConnectRequest{Messages: []*farrierv1.AgentMessage{hello}}); err != nil && !errors.Is(err, errEOF) {
		return false, "", err
	}
	first, err := s.Receive()
	if err != nil {
		return false, "", causeOf(ctx, err)
	}
	greet.Stop()
	in := &inbound{u: u, m: m}
	if err := in.take(first); err != nil {
		return false, in.leader, err
	}
	if !in.welcomed {
		return false, "", fault.New(fault.Internal, "connect", "%s answered hello with neither welcome nor redirect", addr)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			res, err := s.Receive()
			if err != nil {
				return err
			}
			if err := in.take(res); err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		err := u.send(ctx, m, in, s.Send)
		cancel(err) // ends Receive
		return err
	})
	err = g.Wait()
	return true, in.leader, causeOf(ctx, err)
}

// causeOf prefers why the context ended over what ending it looked like.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && cause != context.Canceled {
		return cause
	}
	return err
}

// send writes batches and renewals until the stream breaks or goes stale.
func (u *Uplink) send(ctx context.Context, m *task.Manager, in *inbound, send func(*farrierv1.ConnectRequest) error) error {
	renew := time.NewTicker(in.renewEvery)
	defer renew.Stop()
	summary := time.NewTicker(summaryEvery)
	defer summary.Stop()
	in.acked.Store(int64(u.cfg.Clock.Boottime()))
	for {
		var batch []*farrierv1.AgentMessage
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.out.wake:
		case <-summary.C:
			batch = u.summary()
		case <-renew.C:
			if since := u.cfg.Clock.Boottime() - time.Duration(in.acked.Load()); since > u.cfg.Stale {
				return fault.New(fault.Unavailable, "renew session", "no renewal was acknowledged for %v", since.Round(time.Millisecond))
			}
			u.seq++
			m.Handle(work.Renewing{Seq: u.seq})
			batch = []*farrierv1.AgentMessage{{Body: &farrierv1.AgentMessage_Renew{Renew: &farrierv1.Renew{Seq: u.seq}}}}
		}
		for batch = append(batch, u.out.take(maxBatch)...); len(batch) > 0; batch = u.out.take(maxBatch) {
			if err := send(&farrierv1.ConnectRequest{Messages: batch}); err != nil {
				return err
			}
		}
	}
}

func (u *Uplink) summary() []*farrierv1.AgentMessage {
	if u.cfg.Heartbeats == nil {
		return nil
	}
	beats, boots := u.cfg.Heartbeats()
	if beats == 0 {
		return nil
	}
	return []*farrierv1.AgentMessage{{Body: &farrierv1.AgentMessage_Heartbeats{Heartbeats: &farrierv1.HeartbeatSummary{Beats: beats, Boots: boots}}}}
}

// hello says all that the agent holds, as far as it fits into one request. The rest are outcomes to be said after it: an
// order that comes before one of them is answered from the record, not run.
func (u *Uplink) hello(h task.Holding) (_ *farrierv1.Hello, rest []work.Outcome) {
	hello := &farrierv1.Hello{
		Agent: u.cfg.Agent, JournalId: u.cfg.JournalID[:], Incarnation: u.cfg.Incarnation, Group: u.cfg.Group,
		Drivers: slices.Clone(u.cfg.Drivers), Weight: u.cfg.Weight, Version: u.cfg.Version, FeatureLevel: u.cfg.Level,
		RamdiskUrl: u.cfg.RamdiskURL, HttpUrl: u.cfg.HTTPURL, RamdiskPin: u.cfg.RamdiskPin,
		FreeWorkers: uint32(h.Free), Session: h.Session,
	}
	for _, o := range h.Open[:min(len(h.Open), maxRunning)] {
		hello.Running = append(hello.Running, ToRef(o.Ref, o.Token))
	}
	size := proto.Size(hello)
	for i, o := range h.Unconfirmed {
		out := toOutcome(o)
		if size += proto.Size(out) + fieldBytes; size > maxBytes {
			return hello, h.Unconfirmed[i:]
		}
		hello.Outcomes = append(hello.Outcomes, out)
	}
	return hello, nil
}
