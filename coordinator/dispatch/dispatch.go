package dispatch

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/progress"
	"github.com/farrier-project/farrier/coordinator/dispatch/proposer"
	"github.com/farrier-project/farrier/coordinator/dispatch/ticker"
	"github.com/farrier-project/farrier/coordinator/dispatch/waitlist"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Replica is the replicated state as dispatch needs it.
type Replica interface {
	proposer.Replica
	// Leading tells whether this member leads and has applied its term's barrier.
	Leading() (term uint64, ok bool)
	Leader() (id, raftAddress string, known bool)
}

// Changes wakes its receiver after each applied entry and each change of leader. Wake-ups are coalesced.
type Changes interface {
	Subscribe() (c <-chan struct{}, stop func())
}

// Config is what dispatch needs. Fields without a default must be set.
type Config struct {
	ID      string // this member's name
	Replica Replica
	Changes Changes
	Keyring *secret.Keyring
	Clock   clock.Clock
	Log     *slog.Logger
	// TickEvery is how often replicated time moves. Default ticker.DefaultEvery.
	TickEvery time.Duration
	// IdleTick is the same while there is neither session nor open flow. Default ticker.DefaultIdle.
	IdleTick time.Duration
	// MaxStreams bounds the agents' open streams. Default 4,096.
	MaxStreams int
}

// Bounds of this room.
const (
	maxBatch        = 1024             // commands in one proposal of a stream
	maxBatchBytes   = 256 << 10        // of what was received, in one proposal
	maxPending      = 8192             // received and not yet proposed, of one stream; then reading pauses
	maxPerResponse  = 1024             // messages in one ConnectResponse
	maxPerRequest   = 65536            // messages in one ConnectRequest
	maxRequestBytes = 16 << 20         // of one ConnectRequest
	helloWithin     = 10 * time.Second // of the stream's opening
	sendWithin      = 10 * time.Second // one message on an agent's stream
)

// Dispatch serves the agents. It is safe for concurrent use.
type Dispatch struct {
	cfg      Config
	proposer *proposer.Proposer
	planner  *planner
	ticker   *ticker.Ticker
	waiters  *waitlist.List
	progress progress.Board

	mu      sync.Mutex // guards the fields below
	streams int
	links   map[string]*link // by agent: the newest stream
}

// New makes a Dispatch. Nothing happens until Run.
func New(cfg Config) *Dispatch {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 4096
	}
	d := &Dispatch{cfg: cfg, proposer: proposer.New(cfg.ID, cfg.Replica, cfg.Clock), links: map[string]*link{}}
	d.planner = newPlanner(d)
	d.waiters = waitlist.New(d.proposer, cfg.Clock)
	d.ticker = ticker.New(ticker.Options{
		Proposer: d.proposer, Leading: cfg.Replica.Leading, Changes: cfg.Changes.Subscribe, Renewals: d.renewals, Ticked: d.planner.wake,
		Clock: cfg.Clock, Log: cfg.Log, Every: cfg.TickEvery, Idle: cfg.IdleTick,
	})
	return d
}

// Run moves time, plans and serves the queue until ctx ends. It leads or follows as the replica does.
func (d *Dispatch) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.planner.run(ctx) })
	g.Go(func() error { return d.ticker.Run(ctx) })
	g.Go(func() error { return d.waiters.Run(ctx) })
	return g.Wait()
}

// ClientSeen keeps a client session alive: call it for each request that names one.
func (d *Dispatch) ClientSeen(client string) { d.ticker.ClientSeen(client) }

// ProposeQueued proposes a command that may have to wait for its node's lock: see waitlist.List.
func (d *Dispatch) ProposeQueued(ctx context.Context, cmd command.Command, wait time.Duration) (command.Result, error) {
	return d.waiters.Propose(ctx, cmd, wait)
}

// Progress is what the node's running step last said of itself, as this member knows it.
func (d *Dispatch) Progress(id node.ID) (flow.ID, int, *farrierv1.Progress, bool) {
	s, ok := d.progress.Get(id)
	return s.Flow, s.Step, s.What, ok
}

// FreeWorkers is what the agent last advertised; 0 when it has no stream here.
func (d *Dispatch) FreeWorkers(agent string) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.links[agent]; l != nil {
		return l.free.Load()
	}
	return 0
}

// Queued is how many callers wait for the node's lock; 0 on a member that does not lead.
func (d *Dispatch) Queued(id node.ID) int { return d.waiters.Len(id) }

// Stats are counters for people and for the bench.
type Stats struct {
	Streams int    // open
	Waiters int    // callers in the queue
	Beats   uint64 // ramdisk heartbeats that agents have summed up, of the open streams
}

// Stats counts.
func (d *Dispatch) Stats() Stats {
	d.mu.Lock()
	s := Stats{Streams: d.streams}
	for _, l := range d.links {
		s.Beats += l.beats.Load()
	}
	d.mu.Unlock()
	s.Waiters = d.waiters.Total()
	return s
}

// renewals are the streams with a renewal that no tick has carried yet.
func (d *Dispatch) renewals() []ticker.Renewal {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []ticker.Renewal
	for _, agent := range slices.Sorted(maps.Keys(d.links)) {
		l := d.links[agent]
		if seq := l.renewed.Load(); seq > l.acked.Load() {
			all = append(all, ticker.Renewal{Session: l.session, Applied: func() { l.acknowledge(seq) }})
		}
	}
	return all
}
