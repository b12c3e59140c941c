package driver

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// The bounds of the BMC queues.
const (
	DefaultGap    = 100 * time.Millisecond // between two turns at one BMC; none for simulated ones
	MaxWaiting    = 64                     // behind one BMC
	maxClosing    = 4096                   // clients that wait to be closed; more are left to the BMC's own timeout
	closeWait     = 5 * time.Second        // for one client
	stopWait      = 10 * time.Second       // for all that are open when Run ends; the next life ends the sessions of the rest
	closersAtOnce = 16
)

// BMCs gives turns at the BMCs of an agent. It is safe for concurrent use.
type BMCs struct {
	types    Types
	log      *slog.Logger
	gap      time.Duration
	store    *journal.Journal
	sessions Sessions
	done     chan *held // to be closed

	mu     sync.Mutex // guards lines, fences and what they hold, except clients' calls
	lines  map[string]*line
	nodes  map[string]*held // clients by node
	fences map[string]fence // the last session by node, as the journal has it
}

// fence is a session that this agent opened and has not seen end.
type fence struct {
	uri string
	by  *held // nil: opened in an earlier life
}

// line is the queue of one BMC.
type line struct {
	busy    bool
	yield   func()    // ends a glance; nil during a turn
	ended   time.Time // of the last turn
	waiting []chan struct{}
}

// held is a client kept between turns. It is used only within a turn.
type held struct {
	node   string
	line   string
	driver string
	info   map[string]string
	client bmc.Client
	fenced bool
	ended  []string // sessions of others that this client has ended
	uri    string   // of its own session, once recorded; guarded by BMCs.mu
}

// Sessions keeps the URIs of open BMC sessions where the nodes' next owners find them.
type Sessions interface {
	// Opened returns when it is known that the node's next owner will end the session. On an error nothing may be
	// changed under it: the node may have another owner already.
	Opened(ctx context.Context, node, uri string) error
	// Ended says that a session is over. It does not block and may be lost.
	Ended(node, uri string)
}

// NewBMCs makes the queues. gap 0 means DefaultGap. The journal keeps the sessions' URIs
// for this agent's next life, sessions for the nodes' next owners.
func NewBMCs(types Types, store *journal.Journal, sessions Sessions, gap time.Duration, log *slog.Logger) (*BMCs, error) {
	if gap == 0 {
		gap = DefaultGap
	}
	b := &BMCs{
		types: types, log: log, gap: gap, store: store, sessions: sessions, done: make(chan *held, maxClosing),
		lines: make(map[string]*line), nodes: make(map[string]*held), fences: make(map[string]fence),
	}
	err := store.Each(journal.Fences, func(node string, uri []byte) error {
		b.fences[node] = fence{uri: string(uri)}
		return nil
	})
	return b, err
}

// Turn waits for the node's BMC and calls fn with its client. Busy: too many wait already. fn's ctx is the
// caller's; fence must be called before an effect.
func (b *BMCs) Turn(ctx context.Context, driver string, t bmc.Target, fn func(ctx context.Context, c bmc.Client, fence func(context.Context) error) error) error {
	typ, ok := b.types[driver]
	if !ok {
		return fault.New(fault.Unsupported, "open bmc", "this agent has no hardware type %q", driver)
	}
	key := lineOf(driver, t)
	if err := b.enter(ctx, key, typ.Simulated); err != nil {
		return err
	}
	defer b.leave(key)
	h, err := b.client(typ, t)
	if err != nil {
		return err
	}
	return fn(ctx, h.client, func(ctx context.Context) error { return b.fence(ctx, t, h) })
}

// Glance is a turn in nobody's way. It does not wait for the BMC: Busy, when somebody has it. When somebody comes for it, fn's ctx
// ends, with a cause of kind Aborted; what is read changes nothing, so nothing is lost. fn's ctx is else the caller's.
func (b *BMCs) Glance(ctx context.Context, driver string, t bmc.Target, fn func(ctx context.Context, c bmc.Client) error) error {
	const op = "look at the BMC"
	typ, ok := b.types[driver]
	if !ok {
		return fault.New(fault.Unsupported, op, "this agent has no hardware type %q", driver)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	key := lineOf(driver, t)
	b.mu.Lock()
	l := b.line(key)
	if l.busy {
		b.mu.Unlock()
		return fault.New(fault.Busy, op, "somebody has it")
	}
	l.yield = func() { cancel(fault.New(fault.Aborted, op, "somebody came for it")) }
	if err := b.begin(ctx, key, l, typ.Simulated); err != nil {
		return err
	}
	defer b.leave(key)
	h, err := b.client(typ, t)
	if err != nil {
		return err
	}
	return fn(ctx, h.client)
}

// lineOf is the queue's key: one BMC may manage several machines.
func lineOf(driver string, t bmc.Target) string {
	if addr := t.DriverInfo["redfish_address"]; addr != "" && driver == "redfish" {
		return driver + " " + strings.TrimRight(strings.ToLower(addr), "/")
	}
	return driver + " " + t.Node
}

func (b *BMCs) enter(ctx context.Context, key string, simulated bool) error {
	b.mu.Lock()
	l := b.line(key)
	if l.busy {
		if l.yield != nil {
			l.yield()
		}
		if len(l.waiting) >= MaxWaiting {
			b.mu.Unlock()
			return fault.New(fault.Busy, "wait for the BMC", "%d others wait for it already", MaxWaiting)
		}
		turn := make(chan struct{})
		l.waiting = append(l.waiting, turn)
		b.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			b.abandon(key, turn)
			return fault.New(fault.KindOf(context.Cause(ctx)), "wait for the BMC", "%w", context.Cause(ctx))
		}
		b.mu.Lock()
	}
	return b.begin(ctx, key, l, simulated)
}

// line is the queue of one BMC. It is called under b.mu.
func (b *BMCs) line(key string) *line {
	l := b.lines[key]
	if l == nil {
		l = &line{}
		b.lines[key] = l
	}
	return l
}

// begin takes a line that is the caller's, and waits out the gap. It is called under b.mu, which it unlocks.
func (b *BMCs) begin(ctx context.Context, key string, l *line, simulated bool) error {
	l.busy = true
	rest := b.gap - time.Since(l.ended)
	b.mu.Unlock()
	if simulated || rest <= 0 {
		return nil
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		b.leave(key)
		return fault.New(fault.KindOf(context.Cause(ctx)), "wait for the BMC", "%w", context.Cause(ctx))
	}
}

// abandon leaves the queue. If the turn came in the same moment it is handed on.
func (b *BMCs) abandon(key string, turn chan struct{}) {
	b.mu.Lock()
	l := b.lines[key]
	for i, w := range l.waiting {
		if w == turn {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			b.mu.Unlock()
			return
		}
	}
	b.mu.Unlock()
	b.leave(key)
}

func (b *BMCs) leave(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lines[key]
	l.ended, l.yield = time.Now(), nil
	if len(l.waiting) == 0 {
		l.busy = false
		return
	}
	next := l.waiting[0]
	l.waiting = l.waiting[1:]
	close(next) // busy stays: the turn is handed over
}

// client is the node's client, made afresh when driver_info has changed. It is called within a turn.
func (b *BMCs) client(typ Type, t bmc.Target) (*held, error) {
	b.mu.Lock()
	h := b.nodes[t.Node]
	b.mu.Unlock()
	if h != nil && h.driver == typ.Name && maps.Equal(h.info, t.DriverInfo) {
		return h, nil
	}
	c, err := typ.Factory.Open(t)
	if err != nil {
		return nil, err
	}
	fresh := &held{node: t.Node, line: lineOf(typ.Name, t), driver: typ.Name, info: t.DriverInfo, client: c}
	b.mu.Lock()
	b.nodes[t.Node] = fresh
	b.mu.Unlock()
	if h != nil {
		b.retire(h)
	}
	return fresh, nil
}

// fence ends the sessions that earlier owners, or an earlier life of this agent, may have open, and has this agent's
// own recorded before.
func (b *BMCs) fence(ctx context.Context, t bmc.Target, h *held) error {
	f, ok := h.client.(bmc.Fencer)
	if !ok || h.fenced && !slices.ContainsFunc(t.Sessions, func(uri string) bool { return !slices.Contains(h.ended, uri) }) {
		return nil
	}
	previous := slices.Clone(t.Sessions)
	b.mu.Lock()
	if uri := b.fences[t.Node].uri; uri != "" && !h.fenced && !slices.Contains(previous, uri) {
		previous = append(previous, uri)
	}
	b.mu.Unlock()
	fenced, err := f.Fence(ctx, previous, func(ctx context.Context, uri string) error { return b.opened(ctx, t.Node, h, uri) })
	if err != nil {
		return fault.Wrap("open BMC session", err)
	}
	if !fenced {
		b.log.Warn("the BMC has no sessions: a late request of an earlier owner cannot be refused", "node", t.Node)
	}
	for _, uri := range t.Sessions {
		if own := b.own(h); uri != own && !slices.Contains(h.ended, uri) {
			b.sessions.Ended(t.Node, uri)
		}
	}
	h.fenced, h.ended = true, t.Sessions
	return nil
}

// opened puts a session's URI where this agent's next life and the node's next owner find it.
func (b *BMCs) opened(ctx context.Context, node string, h *held, uri string) error {
	if err := b.store.Put(journal.Entry{Table: journal.Fences, Key: node, Value: []byte(uri)}).Wait(); err != nil {
		return err
	}
	if err := b.sessions.Opened(ctx, node, uri); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fences[node], h.uri = fence{uri, h}, uri
	return nil
}

// over forgets the node's session, if it is of h: a BMC counts its sessions anew in time, and the URI is another's then.
// A client that took h's place overwrites it.
func (b *BMCs) over(node string, h *held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.fences[node]; ok && f.by == h && (b.nodes[node] == nil || b.nodes[node] == h) {
		delete(b.fences, node)
		b.store.Put(journal.Entry{Table: journal.Fences, Key: node})
	}
}

func (b *BMCs) own(h *held) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return h.uri
}

// Forget closes the node's client soon. Should that fail, the node's next owner ends its session.
func (b *BMCs) Forget(node string) {
	b.mu.Lock()
	h, by := b.nodes[node], b.fences[node].by
	delete(b.nodes, node)
	b.mu.Unlock()
	b.over(node, by)
	if h != nil {
		b.retire(h)
	}
}

func (b *BMCs) retire(h *held) {
	select {
	case b.done <- h:
	default:
		b.log.Warn("too many BMC sessions to close: this one is left to time out", "node", h.node)
	}
}

// Run closes the clients that are done with, and all of them when ctx ends.
// A BMC that does not answer holds up one of closersAtOnce.
func (b *BMCs) Run(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(closersAtOnce)
	lasting := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		select {
		case h := <-b.done:
			g.Go(func() error { b.close(lasting, h); return nil })
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(lasting, stopWait)
	defer cancel()
	b.closeDone(last, &g)
	b.closeAll(last, &g)
	return errors.Join(ctx.Err(), g.Wait())
}

// closeDone closes what is done with already.
func (b *BMCs) closeDone(ctx context.Context, g *errgroup.Group) {
	for {
		select {
		case h := <-b.done:
			g.Go(func() error { b.close(ctx, h); return nil })
		default:
			return
		}
	}
}

// close waits for the client's turn, since its calls come one at a time, and closes it whether that came or not.
func (b *BMCs) close(ctx context.Context, h *held) {
	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	if b.enter(ctx, h.line, true) == nil {
		defer b.drop(h.line)
	}
	if err := h.client.Close(ctx); err != nil {
		b.log.Warn("BMC session not closed", "node", h.node, "err", err)
	} else if uri := b.own(h); uri != "" {
		b.over(h.node, h)
		b.sessions.Ended(h.node, uri)
	}
}

// drop leaves the line and forgets it when nobody else is in it.
func (b *BMCs) drop(key string) {
	b.leave(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.lines[key]; l != nil && !l.busy {
		delete(b.lines, key)
	}
}

func (b *BMCs) closeAll(ctx context.Context, g *errgroup.Group) {
	b.mu.Lock()
	all := b.nodes
	b.nodes = make(map[string]*held)
	b.mu.Unlock()
	for _, h := range all {
		g.Go(func() error { b.close(ctx, h); return nil })
	}
}
