package dispatch

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Replica is the replicated state as dispatch needs it.
type Replica interface {
	// Propose answers once the commands are applied on this member, one result for each. Its own error means that
	// none is known to be applied.
	Propose(ctx context.Context, cmds ...command.Command) ([]command.Result, error)
	// View is the newest state. It never goes back, and it includes everything that Propose has answered.
	View() *state.View
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
	// TickEvery is how often replicated time moves. Default 250 ms.
	TickEvery time.Duration
	// IdleTick is the same while there is neither session nor open flow. Default 1 s, at most state.MaxTick.
	IdleTick time.Duration
	// MaxStreams bounds the agents' open streams. Default 4,096.
	MaxStreams int
}

// Bounds of this room.
const (
	maxBatch         = 1024                 // commands in one proposal of a stream
	maxBatchBytes    = 256 << 10            // of what was received, in one proposal
	maxPending       = 8192                 // received and not yet proposed, of one stream; then reading pauses
	maxOutbox        = 65536                // messages not yet sent, of one stream; then the stream is cut
	outboxHigh       = 8192                 // at which the planner stops adding to a stream, until it is half empty
	maxPerResponse   = 1024                 // messages in one ConnectResponse
	maxResponseBytes = 1 << 20              // of one ConnectResponse, unless one message alone is larger
	maxPerRequest    = 65536                // messages in one ConnectRequest
	maxRequestBytes  = 16 << 20             // of one ConnectRequest
	maxClientsSeen   = 8192                 // client sessions renewed by one tick
	maxProgress      = 131072               // nodes with progress in memory
	helloWithin      = 10 * time.Second     // of the stream's opening
	sendWithin       = 10 * time.Second     // one message on an agent's stream
	busyPause        = 5 * time.Millisecond // when too many proposals wait
	proposeWithin    = 10 * time.Second     // a tick, a due command, an opening session
)

// Dispatch serves the agents. It is safe for concurrent use.
type Dispatch struct {
	cfg      Config
	planner  *planner
	waiters  *waitlist
	progress *progress

	mu      sync.Mutex // guards the fields below
	streams int
	links   map[string]*link // by agent: the newest stream
	clients map[string]bool  // client sessions used since the last tick

	ticking sync.Mutex // guards ticker; held for a whole tick
	ticker  tickState
}

// New makes a Dispatch. Nothing happens until Run.
func New(cfg Config) *Dispatch {
	if cfg.TickEvery == 0 {
		cfg.TickEvery = 250 * time.Millisecond
	}
	if cfg.IdleTick == 0 {
		cfg.IdleTick = time.Second
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 4096
	}
	d := &Dispatch{
		cfg: cfg, progress: newProgress(),
		links: map[string]*link{}, clients: map[string]bool{},
	}
	d.planner = newPlanner(d)
	d.waiters = newWaitlist(d)
	return d
}

// Run moves time, plans and serves the queue until ctx ends. It leads or follows as the replica does.
func (d *Dispatch) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.planner.run(ctx) })
	g.Go(func() error { return d.runTicks(ctx) })
	g.Go(func() error { return d.waiters.run(ctx) })
	return g.Wait()
}

// ClientSeen keeps a client session alive: call it for each request that names one.
func (d *Dispatch) ClientSeen(client string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.clients) < maxClientsSeen {
		d.clients[client] = true
	}
}

// Progress is what the node's running step last said of itself, as this member knows it.
func (d *Dispatch) Progress(id node.ID) (flow.ID, int, *farrierv1.Progress, bool) {
	return d.progress.get(id)
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
func (d *Dispatch) Queued(id node.ID) int { return d.waiters.len(id) }

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
	s.Waiters = d.waiters.total()
	return s
}

// commands gives bodies their headers. Seeds are fresh: ids that a command opens are derived from them.
func (d *Dispatch) commands(actor string, bodies []command.Body) []command.Command {
	cluster := d.cfg.Replica.View().Cluster()
	now := d.cfg.Clock.Now()
	cmds := make([]command.Command, len(bodies))
	for i, b := range bodies {
		cmds[i] = command.Command{
			Header: command.Header{Cluster: cluster.ID, Level: cluster.Level, At: now, Actor: actor},
			Body:   b,
		}
		if opensBoots(b) {
			rand.Read(cmds[i].Header.Seed[:])
		}
	}
	return cmds
}

// opensBoots tells whether applying b may draw an id. Locks and ticks, of which there are many, do not.
func opensBoots(b command.Body) bool {
	switch b.(type) {
	case command.Tick, command.AcquireLock, command.ReleaseLock, command.HandoverAck, command.Batch: // of locks: see packLocks
		return false
	}
	return true
}

// as is who this member is in the commands it proposes of its own.
func (d *Dispatch) as() string { return "coordinator " + d.cfg.ID }

// propose is Propose with headers.
func (d *Dispatch) propose(ctx context.Context, actor string, bodies ...command.Body) ([]command.Result, error) {
	return d.cfg.Replica.Propose(ctx, d.commands(actor, bodies)...)
}

// proposeAll proposes commands whose number and size nobody has weighed: a proposal that is too large is made in
// halves, one that finds the replica busy is made again. A command that alone is too large has that as its result.
func (d *Dispatch) proposeAll(ctx context.Context, cmds []command.Command) ([]command.Result, error) {
	for {
		results, err := d.cfg.Replica.Propose(ctx, cmds...)
		switch {
		case fault.Is(err, fault.TooLarge) && len(cmds) > 1:
			half := len(cmds) / 2
			first, err := d.proposeAll(ctx, cmds[:half])
			if err != nil {
				return nil, err
			}
			second, err := d.proposeAll(ctx, cmds[half:])
			if err != nil {
				return nil, fault.New(fault.UnknownOutcome, "propose", "a part of it is committed: %w", err)
			}
			return append(first, second...), nil
		case fault.Is(err, fault.TooLarge):
			return []command.Result{{Err: err}}, nil
		case !fault.Is(err, fault.Busy):
			return results, err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "propose", "too many proposals wait: %w", ctx.Err())
		}
	}
}
