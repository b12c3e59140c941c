package session

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/retry"
	"github.com/farrier-project/farrier/ramdisk-agent/cmdline"
	"github.com/farrier-project/farrier/ramdisk-agent/disk"
	"github.com/farrier-project/farrier/ramdisk-agent/inspect"
	"github.com/farrier-project/farrier/ramdisk-agent/progress"
	"github.com/farrier-project/farrier/ramdisk-agent/steps"
	"github.com/farrier-project/farrier/ramdisk-agent/uplink"
	"github.com/farrier-project/farrier/ramdisk-agent/work"
)

// Version of the ramdisk agent, as it names itself in Lookup.
const Version = "0.1.0"

const (
	defaultInterval = 10 * time.Second // between heartbeats
	minPoll         = 200 * time.Millisecond
)

// Config is what a session needs.
type Config struct {
	Params    cmdline.Params
	Host      disk.Host
	Inventory func() (*inspect.Inventory, error)
	Settle    func()   // waits for what an inventory for others needs; nil: nothing
	Source    net.Addr // local address of connections; nil: the kernel's choice
	Simulated bool
	Log       *slog.Logger
}

// session is one boot of the ramdisk.
type session struct {
	cfg  Config
	log  *slog.Logger
	up   *uplink.Uplink
	run  *steps.Runner
	wake chan struct{} // the outbox has something new
	beat chan struct{} // a heartbeat is due at once

	mu       sync.Mutex // guards the rest
	work     work.State
	stop     context.CancelFunc // of the running step
	progress progress.Progress
	outbox   []work.Outcome
	orders   []work.Order // to start; at most one
	started  chan struct{}
	leave    work.End
	left     bool
	cancel   context.CancelFunc
}

// Run works for the agents until it is told how to leave the machine, or ctx ends.
func Run(ctx context.Context, cfg Config) (work.End, error) {
	inv, err := cfg.Inventory()
	if err != nil {
		return work.GoOn, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return work.GoOn, fault.Wrap("make key", err)
	}
	up, err := uplink.New(uplink.Config{
		Machine: uplink.Machine{MACs: inv.MACs(), UUID: inv.System.UUID, Serial: inv.System.Serial, Version: Version,
			BootID: cfg.Params.BootID, BootCode: cfg.Params.Secret},
		Agents: cfg.Params.Agents, Pins: cfg.Params.Pins, Key: key, Dialer: &net.Dialer{LocalAddr: cfg.Source}, Log: cfg.Log,
	})
	if err != nil {
		return work.GoOn, err
	}
	s := &session{cfg: cfg, log: cfg.Log, up: up, wake: make(chan struct{}, 1), beat: make(chan struct{}, 1), started: make(chan struct{}, 1)}
	s.run = steps.New(steps.Config{Host: cfg.Host, Images: up, Log: cfg.Log, Simulated: cfg.Simulated, Inventory: s.inventory})
	return s.serve(ctx)
}

func (s *session) inventory() ([]byte, error) {
	if s.cfg.Settle != nil {
		s.cfg.Settle()
	}
	inv, err := s.cfg.Inventory()
	if err != nil {
		return nil, err
	}
	inv.BootNIC = s.cfg.Params.BootIf
	return inspect.Compress(inv)
}

func (s *session) serve(ctx context.Context) (work.End, error) {
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	s.log.Info("looking up", "boot", s.cfg.Params.BootID, "agents", len(s.cfg.Params.Agents))
	interval, err := s.up.Lookup(ctx)
	if fault.Is(err, fault.Expired) {
		s.log.Error("the boot attempt is over", "err", err)
		return work.PowerOff, nil
	}
	if err != nil {
		return work.GoOn, err
	}
	s.log.Info("known to the agent", "node", s.up.Node())
	g, gctx := errgroup.WithContext(ctx)
	for _, f := range []func(context.Context) error{
		func(ctx context.Context) error { return s.beats(ctx, interval) }, s.poll, s.report, s.steps,
	} {
		g.Go(func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fault.New(fault.Internal, "run session", "panic: %v", p)
				}
			}()
			return f(gctx)
		})
	}
	err = g.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return s.leave, nil
	}
	return work.GoOn, err
}

// event gives one event to work and carries out its effects. It never blocks.
func (s *session) event(e work.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.effects(s.work.Step(e))
}

// effects carries out what work answered. The caller holds mu.
func (s *session) effects(effects []work.Effect) {
	for _, eff := range effects {
		switch eff := eff.(type) {
		case work.Start:
			s.log.Info("step starts", "step", eff.Order.Step, "flow", eff.Order.Ref.Flow, "attempt", eff.Order.Ref.Attempt,
				"token", eff.Order.Ref.Token, "resumed", eff.Order.Resumed)
			s.orders = []work.Order{eff.Order}
			s.progress = progress.Progress{}
			poke(s.started)
			poke(s.beat)
		case work.Stop:
			s.log.Warn("step is stopped", "reason", eff.Reason)
			if s.stop != nil {
				s.stop()
			}
			if len(s.orders) > 0 { // it had not begun
				s.orders = nil
				s.effects(s.work.Step(work.Finished{Outcome: work.Outcome{Error: "cancelled", Kind: fault.Aborted.String()}}))
			}
		case work.Report:
			s.put(eff.Outcome)
		case work.Ignore:
			s.log.Warn("order refused", "reason", eff.Reason, "token", eff.Ref.Token, "highest", s.work.Token())
		case work.Leave:
			s.log.Info("leaving", "how", eff.How.String())
			s.leave, s.left = eff.How, true
			s.cancel()
		}
	}
}

// put queues an outcome; a later report of the same step replaces the earlier one. The caller holds mu.
func (s *session) put(o work.Outcome) {
	const most = 4
	for i := range s.outbox {
		if s.outbox[i].Ref.Flow == o.Ref.Flow && s.outbox[i].Ref.Step == o.Ref.Step {
			s.outbox = append(s.outbox[:i], s.outbox[i+1:]...)
			break
		}
	}
	if len(s.outbox) == most {
		s.outbox = s.outbox[1:]
	}
	s.outbox = append(s.outbox, o)
	poke(s.wake)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// steps runs what work starts, one at a time.
func (s *session) steps(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.started:
		}
		s.mu.Lock()
		if len(s.orders) == 0 {
			s.mu.Unlock()
			continue
		}
		o := s.orders[0]
		s.orders = nil
		sctx, stop := context.WithCancel(ctx)
		s.stop = stop
		s.mu.Unlock()
		begun := time.Now()
		out := s.run.Run(sctx, o, s.note)
		s.mu.Lock()
		s.stop = nil
		s.mu.Unlock()
		stop()
		s.log.Info("step ended", "step", o.Step, "ok", out.OK, "took", time.Since(begun).Round(time.Millisecond), "err", out.Error)
		s.event(work.Finished{Outcome: out})
		poke(s.beat)
	}
}

func (s *session) note(p progress.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = p
}

// report tells outcomes until they are answered.
func (s *session) report(ctx context.Context) error {
	for {
		s.mu.Lock()
		var o *work.Outcome
		if len(s.outbox) > 0 {
			first := s.outbox[0]
			o = &first
		}
		s.mu.Unlock()
		if o == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.wake:
			}
			continue
		}
		err := s.up.Report(ctx, *o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fault.Is(err, fault.Expired) {
			s.event(work.Halted{})
			return nil
		}
		if err != nil {
			s.log.Error("no agent takes the outcome: dropped", "flow", o.Ref.Flow, "step", o.Ref.Step, "err", err)
		}
		s.drop(o.Ref)
		if err == nil {
			s.event(work.Confirmed{Ref: o.Ref})
		}
	}
}

func (s *session) drop(r work.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.outbox {
		if s.outbox[i].Ref == r {
			s.outbox = append(s.outbox[:i], s.outbox[i+1:]...)
			return
		}
	}
}

// poll asks for commands.
func (s *session) poll(ctx context.Context) error {
	for failures := 0; ; {
		s.mu.Lock()
		ref, ok := s.work.Have()
		s.mu.Unlock()
		var have *work.Ref
		if ok {
			have = &ref
		}
		asked := time.Now()
		c, err := s.up.Next(ctx, have)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failures++
			s.log.Error("cannot ask for a command", "err", err)
			if err := (retry.Backoff{Max: 10 * time.Second}).Sleep(ctx, failures); err != nil {
				return err
			}
			continue
		}
		failures = 0
		switch {
		case c.Halt:
			s.log.Warn("told to halt")
			s.event(work.Halted{})
			return nil
		case c.Cancel != nil:
			s.event(work.Cancelled{Ref: *c.Cancel})
		case c.Order != nil:
			s.event(work.Ordered{Order: *c.Order})
		case time.Since(asked) < minPoll: // an agent that does not wait must not be asked in a tight loop
			if err := (retry.Backoff{Base: minPoll}).Sleep(ctx, 1); err != nil {
				return err
			}
		}
	}
}

// beats sends heartbeats: at the interval that the agent names, at every start and end of a step, and every second
// while a step makes progress.
func (s *session) beats(ctx context.Context, interval time.Duration) error {
	if interval <= 0 {
		interval = defaultInterval
	}
	for {
		s.mu.Lock()
		p := s.progress
		o, running := s.work.Running()
		s.mu.Unlock()
		var ref *work.Ref
		if running {
			ref = &o.Ref
		}
		b, err := s.up.Heartbeat(ctx, ref, p)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.log.Warn("heartbeat failed", "err", err)
		case b.Halt:
			s.log.Warn("told to halt")
			s.event(work.Halted{})
			return nil
		case b.Interval > 0:
			interval = b.Interval
		}
		next := interval
		if running {
			next = min(interval, time.Second)
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-s.beat:
		case <-t.C:
		}
		t.Stop()
		if err := s.up.Renew(ctx); err != nil {
			return fmt.Errorf("renew certificate: %w", err)
		}
	}
}
