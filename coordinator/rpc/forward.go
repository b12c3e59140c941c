package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// leaderPoll is how often a request that waits for a leader looks again.
const leaderPoll = 20 * time.Millisecond

// maxAnswer bounds the answer to a unary request that is sent on, in bytes. Lists are paged and far smaller.
const maxAnswer = 64 << 20

// Forwarder finds the leader and sends requests on to it. An attempt at a member that no longer leads ends when
// the new leader is known, however silent the old one is.
type Forwarder struct {
	self      string
	reader    Reader
	transport http.RoundTripper
	wait      time.Duration
	log       *slog.Logger

	mu    sync.Mutex // guards era and end
	era   context.Context
	end   context.CancelFunc
	index coalesced
}

func newForwarder(cfg Config) *Forwarder {
	f := &Forwarder{self: cfg.ID, reader: cfg.Reader, transport: cfg.Transport, wait: cfg.LeaderWait, log: cfg.Log}
	f.era, f.end = context.WithCancel(context.Background())
	return f
}

// Run follows the leadership until ctx ends.
func (f *Forwarder) Run(ctx context.Context, changes Changes) error {
	wake, stop := changes.Subscribe()
	defer stop()
	last, _, _ := f.reader.Leader()
	for {
		select {
		case <-ctx.Done():
			f.turn(true)
			return nil
		case <-wake:
		}
		id, _, known := f.reader.Leader()
		if !known || id == last {
			continue
		}
		last = id
		f.turn(false)
	}
}

// turn ends all attempts at the leader of before.
func (f *Forwarder) turn(closing bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end()
	if !closing {
		f.era, f.end = context.WithCancel(context.Background())
	}
}

func (f *Forwarder) current() context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.era
}

// route waits for a leader. It is local if this member leads. A request that another member sent on is never sent
// on again.
func (f *Forwarder) route(ctx context.Context, forwarded bool) (local bool, err error) {
	if _, ok := f.reader.Leading(); ok {
		return true, nil
	}
	id, _, known := f.reader.Leader()
	if forwarded && known && id != f.self {
		return false, f.notLeader()
	}
	_, err = f.leader(ctx, time.Now().Add(f.wait))
	if errors.Is(err, errLocal) {
		return true, nil
	}
	if err == nil && forwarded {
		return false, f.notLeader()
	}
	return false, err
}

const opLeader = "find leader"

var errLocal = errors.New("this member leads")

func (f *Forwarder) notLeader() error {
	e := fault.New(fault.NotLeader, "", "%s does not lead", f.self)
	if id, _, known := f.reader.Leader(); known && id != f.self {
		if m, ok := memberByID(f.reader.View(), id); ok {
			return e.WithDetail(&fault.LeaderDetail{Address: m.APIAddress})
		}
	}
	return e
}

// leader waits until a leader is known, and answers its member record, or errLocal.
func (f *Forwarder) leader(ctx context.Context, until time.Time) (command.Member, error) {
	tick := time.NewTicker(leaderPoll)
	defer tick.Stop()
	for {
		if _, ok := f.reader.Leading(); ok {
			return command.Member{}, errLocal
		}
		if id, _, known := f.reader.Leader(); known && id != f.self {
			if m, ok := memberByID(f.reader.View(), id); ok {
				return m, nil
			}
		}
		if time.Now().After(until) {
			return command.Member{}, fault.New(fault.NoQuorum, opLeader, "no coordinator leads, as seen from %s for %v", f.self, f.wait)
		}
		select {
		case <-ctx.Done():
			return command.Member{}, fault.New(fault.Timeout, opLeader, "no coordinator leads, as seen from %s: %w", f.self, ctx.Err()).
				WithHelp(refusal.NeedMajority)
		case <-tick.C:
		}
	}
}

// serve sends the request on and its answer back.
func (f *Forwarder) serve(w http.ResponseWriter, r *http.Request, c access.Caller, m access.Method, repeat bool, refuse func(http.ResponseWriter, *http.Request, error)) {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "https", "leader" // each attempt sets the address
			p.Out.Host = ""
			c.Write(p.Out.Header)
			p.Out.GetBody = r.GetBody
		},
		Transport:     attempts{f: f, repeat: repeat, streams: m.Streams},
		FlushInterval: -1,
		ErrorHandler:  refuse,
		ErrorLog:      slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
}

// attempts is a round trip to whoever leads. A request that surely was not executed is tried again until the
// wait is over; one that may have been only if a repeat is harmless.
type attempts struct {
	f       *Forwarder
	repeat  bool // a read, or a write with a request id
	streams bool
}

// RoundTrip implements http.RoundTripper.
func (a attempts) RoundTrip(req *http.Request) (*http.Response, error) {
	until := time.Now().Add(a.f.wait)
	for {
		m, err := a.f.leader(req.Context(), until)
		if err != nil { // errLocal too: this member became the leader meanwhile
			return nil, err
		}
		res, err := a.once(req, m)
		retry := err == nil && again(res.Header, a.repeat)
		if err == nil && !retry {
			return res, nil
		}
		if err != nil && req.Context().Err() != nil {
			return nil, req.Context().Err()
		}
		if err != nil && !notSent(err) && !a.repeat {
			return nil, fault.New(fault.UnknownOutcome, "send request to leader "+m.ID, "%w", err)
		}
		if a.streams || time.Now().After(until) {
			if retry {
				return res, nil
			}
			return nil, fault.New(fault.Unavailable, "send request to leader "+m.ID, "%w", err).
				WithHelp("the leader does not answer: `farrier coordinator members` shows who is there")
		}
		if retry {
			_ = res.Body.Close()
		}
		if !pause(req.Context()) {
			return nil, req.Context().Err()
		}
	}
}

// once is one attempt. It ends early when another leader is known.
func (a attempts) once(req *http.Request, m command.Member) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(a.f.current(), cancel)
	out := req.Clone(ctx)
	out.URL.Host = m.APIAddress
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			cancel()
			return nil, err
		}
		out.Body = body
	}
	res, err := a.f.transport.RoundTrip(out)
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	if a.streams {
		res.Body = &endingBody{ReadCloser: res.Body, end: func() { stop(); cancel() }}
		return res, nil
	}
	// The end of the leader's term may cut the answer short: it counts when it is whole.
	defer cancel()
	defer stop()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err = errors.Join(err, res.Body.Close()); err == nil && len(data) > maxAnswer {
		err = fault.New(fault.TooLarge, "read the leader's answer", "it is larger than %d bytes", maxAnswer)
	}
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(data))
	return res, nil
}

// endingBody ends its attempt when it is closed.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// notSent tells whether the request surely did not reach the other side.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// coalesced shares one call among those that arrived before it began.
type coalesced struct {
	mu   sync.Mutex // guards next
	next *sharedCall
	turn sync.Mutex // held by the call in work
}

type sharedCall struct {
	done  chan struct{}
	value uint64
	err   error
}

// do joins the next call, which has not begun, or makes it. fn runs under the context of the caller that makes
// it; who joined tries again on its own if that one left.
func (c *coalesced) do(ctx context.Context, fn func(context.Context) (uint64, error)) (uint64, error) {
	for {
		c.mu.Lock()
		call, mine := c.next, false
		if call == nil {
			call, mine = &sharedCall{done: make(chan struct{})}, true
			c.next = call
		}
		c.mu.Unlock()
		if mine {
			c.turn.Lock()
			c.mu.Lock()
			c.next = nil // from here on, who arrives needs a later call
			c.mu.Unlock()
			call.value, call.err = fn(ctx)
			c.turn.Unlock()
			close(call.done)
			return call.value, call.err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-call.done:
		}
		if call.err == nil || !errors.Is(call.err, context.Canceled) && !errors.Is(call.err, context.DeadlineExceeded) {
			return call.value, call.err
		}
	}
}
