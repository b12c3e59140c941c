package powersync

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	// AtOnce is how many BMCs are looked at, and waited for, at one time: of 2,500 nodes in 120 s a tenth may be dead, and the
	// others still have their turn in time.
	AtOnce  = 128
	lookFor = 30 * time.Second // at one BMC
	idle    = time.Hour        // without anything due: whatever comes wakes
)

// BMCs are looked at through it.
type BMCs interface {
	// Glance calls fn with the node's BMC, if nothing is ordered for the node and nobody else has the BMC; else it is Busy and fn is
	// not called. fn's ctx ends with a cause of kind Aborted when somebody comes for the BMC. Calls may overlap, for different nodes.
	Glance(ctx context.Context, node string, fn func(context.Context, Power) error) error
}

// Power is what is read.
type Power interface {
	Power(ctx context.Context) (bmc.PowerState, error)
}

// Config is what a Sync needs.
type Config struct {
	Every    time.Duration // between two readings of a node; 0: nothing is read
	Recovery time.Duration // likewise, of a node whose BMC did not answer
	BMCs     BMCs
	// Saw is told what the coordinators do not know, before fn of Glance returns: an order's effect at that BMC, and its outcome, come
	// after. It does not block, and what it is told may be lost.
	Saw   func(Seen)
	Clock clock.Clock
	Log   *slog.Logger
}

// Sync looks at the nodes. It is safe for concurrent use.
type Sync struct {
	cfg  Config
	wake chan struct{}

	mu      sync.Mutex // guards the fields below
	plan    schedule
	looking int
}

// New makes a Sync. Run must be running for anything to be read.
func New(cfg Config) *Sync {
	return &Sync{cfg: cfg, wake: make(chan struct{}, 1), plan: newSchedule(cfg.Every, cfg.Recovery)}
}

// Assigned takes in a node as the coordinators say it is.
func (s *Sync) Assigned(n *task.Node) {
	if s.cfg.Every == 0 {
		return
	}
	s.mu.Lock()
	s.plan.assigned(s.cfg.Clock.Boottime(), n)
	s.mu.Unlock()
	s.poke()
}

// Forgotten says that a node is another agent's.
func (s *Sync) Forgotten(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.forgotten(node)
}

func (s *Sync) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run looks at nodes as they are due, until ctx ends.
func (s *Sync) Run(ctx context.Context) error {
	var g errgroup.Group
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), g.Wait())
		}
		timer.Reset(s.begin(ctx, &g))
	}
}

// begin looks at what is due, as far as AtOnce allows, and returns how long nothing else is.
func (s *Sync) begin(ctx context.Context, g *errgroup.Group) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Clock.Boottime()
	for s.looking < AtOnce {
		e, due := s.plan.take(now)
		if !due {
			if at, any := s.plan.next(); any {
				return at - now
			}
			return idle
		}
		s.looking++
		g.Go(func() error { s.look(ctx, e); return nil })
	}
	return idle // until a look ends
}

func (s *Sync) look(ctx context.Context, e *entry) {
	looked := false
	err := s.cfg.BMCs.Glance(ctx, e.node, func(ctx context.Context, p Power) error {
		looked = true
		ctx, cancel := context.WithTimeoutCause(ctx, lookFor, fault.New(fault.Timeout, "read power state", "no answer within %v", lookFor))
		defer cancel()
		power, err := p.Power(ctx)
		if err == nil && power == bmc.PowerUnknown {
			err = fault.New(fault.Unavailable, "read power state", "the BMC says neither on nor off")
		}
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		s.ended(e, power, err, cutOff(err))
		return err
	})
	if !looked {
		s.ended(e, bmc.PowerUnknown, err, fault.Is(err, fault.Busy) || cutOff(err))
	}
	s.mu.Lock()
	s.looking--
	s.mu.Unlock()
	s.poke()
}

// cutOff tells that a reading was ended by others: by an order, or by the agent's own end.
func cutOff(err error) bool { return fault.Is(err, fault.Aborted) || errors.Is(err, context.Canceled) }

// ended takes in what a look came to; missed: the BMC was not asked, or was left to somebody who came.
func (s *Sync) ended(e *entry, power bmc.PowerState, err error, missed bool) {
	s.mu.Lock()
	now := s.cfg.Clock.Boottime()
	if missed {
		s.plan.missed(now, e)
		s.mu.Unlock()
		return
	}
	seen, say := s.plan.done(now, e, power, err)
	s.mu.Unlock()
	if err != nil {
		s.cfg.Log.Debug("power not read", "node", e.node, "err", err)
	}
	if !say {
		return
	}
	s.cfg.Log.Info("power is not as the coordinators have it", "node", seen.Node, "power", seen.Power.String(), "err", seen.Error)
	s.cfg.Saw(seen)
}
