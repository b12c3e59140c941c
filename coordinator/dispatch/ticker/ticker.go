package ticker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/proposer"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/plan"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Defaults of Options.
const (
	DefaultEvery = 250 * time.Millisecond
	DefaultIdle  = time.Second
)

const (
	maxClientsSeen = 8192 // client sessions renewed by one tick
	maxRounds      = 16   // of due commands in one tick, so that it never waits for an endless list
)

// Renewal is an agent's session with a renewal that no tick has carried yet.
type Renewal struct {
	Session string
	Applied func() // is called once the tick that carries it is applied
}

// Options are what a Ticker needs. All but Every and Idle must be set.
type Options struct {
	Proposer *proposer.Proposer
	Leading  func() (term uint64, ok bool)           // see Replica of dispatch
	Changes  func() (c <-chan struct{}, stop func()) // wakes after each applied entry and each change of leader
	Renewals func() []Renewal                        // in the order of the agents' names
	Ticked   func()                                  // time has moved; may not block
	Clock    clock.Clock
	Log      *slog.Logger
	Every    time.Duration // how often time moves. Default DefaultEvery
	Idle     time.Duration // the same while there is neither session nor open flow. Default DefaultIdle, at most state.MaxTick
}

// Ticker moves time. It is safe for concurrent use.
type Ticker struct {
	o Options

	ticking sync.Mutex // guards at; held for a whole tick
	at      reached

	mu      sync.Mutex      // guards clients
	clients map[string]bool // client sessions used since the last tick
}

// reached is where time has come.
type reached struct {
	term  uint64        // whose first tick is applied; 0: none
	tried uint64        // term whose first tick was proposed at once
	last  time.Duration // boottime at the tick proposed before
	idle  time.Duration // boottime when there was last found nothing that needs time at the full pace
}

// New makes a Ticker. Nothing happens until Run.
func New(o Options) *Ticker {
	if o.Every == 0 {
		o.Every = DefaultEvery
	}
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	return &Ticker{o: o, clients: map[string]bool{}}
}

// Run ticks until ctx ends: at its pace, and at once when this member's term as the leader begins: sessions get their full time
// from there, and what is due is proposed.
func (t *Ticker) Run(ctx context.Context) error {
	every := time.NewTicker(t.o.Every)
	defer every.Stop()
	changes, stop := t.o.Changes()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			t.first(ctx)
		case <-every.C:
			t.Tick(ctx)
		}
	}
}

// ClientSeen keeps a client session alive, by the next tick.
func (t *Ticker) ClientSeen(client string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.clients) < maxClientsSeen {
		t.clients[client] = true
	}
}

func (t *Ticker) takeClients() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.clients) == 0 {
		return nil
	}
	seen := slices.Sorted(maps.Keys(t.clients))
	clear(t.clients)
	return seen
}

// first is the first tick of this member's term, if it leads and that was not tried yet. Later tries are Tick's.
func (t *Ticker) first(ctx context.Context) {
	t.ticking.Lock()
	defer t.ticking.Unlock()
	if term, leading := t.o.Leading(); leading && t.at.term != term && t.at.tried != term {
		t.at.tried = term
		t.tick(ctx)
	}
}

// Tick moves replicated time once, if this member leads and it is time, then proposes what has fallen due.
func (t *Ticker) Tick(ctx context.Context) {
	t.ticking.Lock()
	defer t.ticking.Unlock()
	t.tick(ctx)
}

func (t *Ticker) tick(ctx context.Context) {
	term, leading := t.o.Leading()
	if !leading {
		t.at = reached{}
		return
	}
	now := t.o.Clock.Boottime()
	first := t.at.term != term
	pace := t.pace(t.o.Proposer.View())
	if pace == 0 {
		t.at.last = now // nothing is measured: time stands still
	}
	if pace != t.o.Every {
		t.at.idle = now
	}
	if !first && (pace == 0 || pace > t.o.Every && now-t.at.last < pace) {
		return
	}
	since := t.at.last
	if pace == t.o.Every { // a session that has just been opened is not charged for the idle time before it
		since = max(since, t.at.idle)
	}
	body := command.Tick{FirstOfTerm: first}
	if !first {
		body.D = min(max(now-since, 0), state.MaxTick)
	}
	renewals := t.o.Renewals()
	for _, r := range renewals {
		body.Renew = append(body.Renew, r.Session)
	}
	body.ClientSeen = t.takeClients()
	t.at.last = now
	if !t.propose(ctx, body) {
		return
	}
	t.at.term = term
	for _, r := range renewals {
		r.Applied()
	}
	t.o.Ticked()
	t.due(ctx, first)
}

func (t *Ticker) propose(ctx context.Context, body command.Tick) bool {
	ctx, cancel := proposer.Bounded(ctx)
	defer cancel()
	res, err := t.o.Proposer.Propose(ctx, t.o.Proposer.Self(), body)
	if err == nil {
		err = res[0].Err
	}
	if err != nil && ctx.Err() == nil && !fault.Is(err, fault.NotLeader) {
		t.o.Log.Warn("replicated time stands still: a tick was not applied", "err", err)
	}
	return err == nil
}

// pace is how often time needs to move: 0 when nothing is measured against it.
func (t *Ticker) pace(v *state.View) time.Duration {
	busy := false
	v.Sessions(func(*state.Session) bool {
		busy = true
		return false
	})
	v.OpenFlows(func(*flow.Flow) bool {
		busy = true
		return false
	})
	switch {
	case busy:
		return t.o.Every
	case v.HasDeadlines():
		return t.o.Idle // join tokens and client sessions have time
	default:
		return 0
	}
}

// due proposes the timeouts that plan finds, and at the start of a term the flows that nobody would take on. What
// fails is found again.
func (t *Ticker) due(ctx context.Context, first bool) {
	ctx, cancel := proposer.Bounded(ctx)
	defer cancel()
	if first {
		t.proposeDue(ctx, plan.Stalled(t.o.Proposer.View()))
	}
	for range maxRounds {
		bodies := plan.Due(t.o.Proposer.View())
		if !t.proposeDue(ctx, bodies) || len(bodies) < plan.MaxDue {
			return
		}
	}
}

func (t *Ticker) proposeDue(ctx context.Context, bodies []command.Body) bool {
	if len(bodies) == 0 {
		return false
	}
	results, err := t.o.Proposer.Propose(ctx, t.o.Proposer.Self(), bodies...)
	if err != nil {
		return false
	}
	for i, r := range results {
		if r.Err != nil {
			t.o.Log.Warn("a due command was refused", "command", bodies[i], "err", r.Err)
		}
	}
	return true
}
