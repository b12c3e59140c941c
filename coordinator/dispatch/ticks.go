package dispatch

import (
	"context"
	"maps"
	"slices"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/plan"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// tickState is guarded by Dispatch.ticking.
type tickState struct {
	term  uint64        // whose first tick is applied; 0: none
	tried uint64        // term whose first tick was proposed at once
	last  time.Duration // boottime at the tick proposed before
	idle  time.Duration // boottime when there was last found nothing that needs time at the full pace
}

// runTicks ticks at its pace, and at once when this member's term as the leader begins: sessions get their full time
// from there, and what is due is proposed.
func (d *Dispatch) runTicks(ctx context.Context) error {
	every := time.NewTicker(d.cfg.TickEvery)
	defer every.Stop()
	changes, stop := d.cfg.Changes.Subscribe()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			d.firstTick(ctx)
		case <-every.C:
			d.tick(ctx)
		}
	}
}

// firstTick is the first tick of this member's term, if it leads and that was not tried yet. Later tries are tick's.
func (d *Dispatch) firstTick(ctx context.Context) {
	d.ticking.Lock()
	defer d.ticking.Unlock()
	if term, leading := d.cfg.Replica.Leading(); leading && d.ticker.term != term && d.ticker.tried != term {
		d.ticker.tried = term
		d.tickLocked(ctx)
	}
}

// tick moves replicated time once, if this member leads and it is time, then proposes what has fallen due.
func (d *Dispatch) tick(ctx context.Context) {
	d.ticking.Lock()
	defer d.ticking.Unlock()
	d.tickLocked(ctx)
}

func (d *Dispatch) tickLocked(ctx context.Context) {
	term, leading := d.cfg.Replica.Leading()
	if !leading {
		d.ticker = tickState{}
		return
	}
	now := d.cfg.Clock.Boottime()
	first := d.ticker.term != term
	pace := d.pace(d.cfg.Replica.View())
	if pace == 0 {
		d.ticker.last = now // nothing is measured: time stands still
	}
	if pace != d.cfg.TickEvery {
		d.ticker.idle = now
	}
	if !first && (pace == 0 || pace > d.cfg.TickEvery && now-d.ticker.last < pace) {
		return
	}
	since := d.ticker.last
	if pace == d.cfg.TickEvery { // a session that has just been opened is not charged for the idle time before it
		since = max(since, d.ticker.idle)
	}
	body := command.Tick{FirstOfTerm: first}
	if !first {
		body.D = min(max(now-since, 0), state.MaxTick)
	}
	renewals := d.renewals()
	for _, r := range renewals {
		body.Renew = append(body.Renew, r.link.session)
	}
	body.ClientSeen = d.takeClients()
	d.ticker.last = now
	if !d.proposeTick(ctx, body) {
		return
	}
	d.ticker.term = term
	for _, r := range renewals {
		r.link.acked.Store(r.seq)
		r.link.out.put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Renewed{
			Renewed: &farrierv1.Renewed{Seq: r.seq}}})
	}
	d.planner.wake() // what was not to start before some elapsed time may start now
	d.due(ctx, first)
}

func (d *Dispatch) proposeTick(ctx context.Context, body command.Tick) bool {
	ctx, cancel := context.WithTimeout(ctx, proposeWithin)
	defer cancel()
	res, err := d.propose(ctx, d.as(), body)
	if err == nil {
		err = res[0].Err
	}
	if err != nil && ctx.Err() == nil && !fault.Is(err, fault.NotLeader) {
		d.cfg.Log.Warn("replicated time stands still: a tick was not applied", "err", err)
	}
	return err == nil
}

// pace is how often time needs to move: 0 when nothing is measured against it.
func (d *Dispatch) pace(v *state.View) time.Duration {
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
		return d.cfg.TickEvery
	case v.HasDeadlines():
		return d.cfg.IdleTick // join tokens and client sessions have time
	default:
		return 0
	}
}

// renewal is a stream with a renewal that no tick has carried yet.
type renewal struct {
	link *link
	seq  uint64
}

func (d *Dispatch) renewals() []renewal {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []renewal
	for _, agent := range slices.Sorted(maps.Keys(d.links)) {
		l := d.links[agent]
		if seq := l.renewed.Load(); seq > l.acked.Load() {
			all = append(all, renewal{l, seq})
		}
	}
	return all
}

func (d *Dispatch) takeClients() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.clients) == 0 {
		return nil
	}
	seen := slices.Sorted(maps.Keys(d.clients))
	clear(d.clients)
	return seen
}

// due proposes the timeouts that plan finds, and at the start of a term the flows that nobody would take on. What
// fails is found again.
func (d *Dispatch) due(ctx context.Context, first bool) {
	ctx, cancel := context.WithTimeout(ctx, proposeWithin)
	defer cancel()
	if first {
		d.proposeDue(ctx, plan.Stalled(d.cfg.Replica.View()))
	}
	for range 16 { // rounds, so that a tick never waits for an endless list
		bodies := plan.Due(d.cfg.Replica.View())
		if !d.proposeDue(ctx, bodies) || len(bodies) < plan.MaxDue {
			return
		}
	}
}

func (d *Dispatch) proposeDue(ctx context.Context, bodies []command.Body) bool {
	if len(bodies) == 0 {
		return false
	}
	results, err := d.propose(ctx, d.as(), bodies...)
	if err != nil {
		return false
	}
	for i, r := range results {
		if r.Err != nil {
			d.cfg.Log.Warn("a due command was refused", "command", bodies[i], "err", r.Err)
		}
	}
	return true
}
