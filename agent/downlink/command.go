package downlink

import (
	"context"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Deliver hands an order for the ramdisk executor to its machine; it returns at once, and the outcome comes by OnOutcome. The same
// attempt again, under a higher token, tells the ramdisk the new token. Errors: StaleToken, an order of the node
// came under a higher one; NotFound, the node is not assigned here; Expired, its boot attempt is not the order's.
func (s *Service) Deliver(o *farrierv1.Order) error {
	ref := o.GetRef()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[ref.GetNode()]
	if n == nil {
		return fault.New(fault.NotFound, "deliver order", "node %q is not assigned to this agent", ref.GetNode())
	}
	if ref.Token < n.token {
		return fault.New(fault.StaleToken, "deliver order", "token %d, but %d was seen for node %s", ref.Token, n.token, n.id)
	}
	n.token = ref.Token
	a := n.boot
	if a == nil || o.BootId != "" && a.id != o.BootId {
		return fault.New(fault.Expired, "deliver order", "boot attempt %s of node %s is not open", printable(o.BootId), n.id)
	}
	a.known = a.known || a.claimed // a ramdisk gets work only after its first contact is committed
	if c := a.command; c != nil && keyOf(c.Ref) == keyOf(ref) && c.Ref.Token == ref.Token {
		return nil
	}
	if w := a.waiters[keyOf(ref)]; w != nil && w.ok {
		return nil // committed: the order is a repeat from before
	}
	a.command = &farrierv1.RamdiskCommand{Ref: ref, Step: ramdiskStep(o.Step), Args: o.Args, SecretArgs: o.SecretArgs, Resumed: o.Resumed}
	if sha := o.Args["sha256"]; o.Step == "write_image" && sha != "" {
		a.command.ImagePath = "/images/" + sha
	}
	a.canceled = false
	a.sentAt, a.cancelAt = never, never
	a.wakeAll()
	return nil
}

// ramdiskStep is the ramdisk's word for a step: taking the agent down is, for the machine, to flush and power off.
func ramdiskStep(step string) string {
	if step == "tear_down_agent" {
		return "power_off"
	}
	return step
}

// Cancel tells the ramdisk to stop the step that ref names, and tells again until its outcome is reported. It is false when that
// step is not the ramdisk's.
func (s *Service) Cancel(ref *farrierv1.OrderRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[ref.GetNode()]
	if n == nil || n.boot == nil || n.boot.command == nil || keyOf(n.boot.command.Ref) != keyOf(ref) {
		return false
	}
	n.boot.canceled = true
	n.boot.wakeAll()
	return true
}

// Confirm says that an outcome is committed: the ramdisk need not report it again.
func (s *Service) Confirm(ref *farrierv1.OrderRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[ref.GetNode()]
	if n == nil || n.boot == nil {
		return
	}
	a := n.boot
	if a.command != nil && keyOf(a.command.Ref) == keyOf(ref) {
		a.command = nil
	}
	if w := a.waiter(keyOf(ref)); !w.ok {
		w.ok = true
		close(w.done)
	}
}

// waiter finds or makes the confirmation of an outcome, and forgets another beyond maxWaiters. The caller holds mu.
func (a *attempt) waiter(k refKey) *confirmation {
	if w := a.waiters[k]; w != nil {
		return w
	}
	if len(a.waiters) >= maxWaiters {
		oldest := k
		for o := range a.waiters {
			if o.step < oldest.step || o.step == oldest.step && o.attempt < oldest.attempt {
				oldest = o
			}
		}
		delete(a.waiters, oldest)
	}
	w := &confirmation{done: make(chan struct{})}
	a.waiters[k] = w
	return w
}

// NextCommand implements the RPC.
func (s *Service) NextCommand(ctx context.Context, q *farrierv1.NextCommandRequest) (*farrierv1.NextCommandResponse, error) {
	deadline := time.NewTimer(min(max(q.GetWait().AsDuration(), 0), maxWait))
	defer deadline.Stop()
	var mine uint64
	for {
		a, halt, err := s.caller(ctx, q.BootId)
		if err != nil {
			return nil, connectError(err)
		}
		if halt {
			return &farrierv1.NextCommandResponse{Halt: true}, nil
		}
		s.mu.Lock()
		if mine == 0 {
			a.poll++
			mine = a.poll
			a.wakeAll() // an older call of the same ramdisk ends
			a.seen(s.clock.Boottime())
		}
		if a.poll != mine {
			s.mu.Unlock()
			return &farrierv1.NextCommandResponse{}, nil
		}
		cmd, again := a.nextCommand(q.Have, s.clock.Boottime())
		wake := a.wake
		s.mu.Unlock()
		if cmd != nil {
			return &farrierv1.NextCommandResponse{Command: cmd}, nil
		}
		if !wait(ctx, wake, deadline.C, again) {
			return &farrierv1.NextCommandResponse{}, ctx.Err()
		}
	}
}

// wait is false when the call is over, true when it is time to look again.
func wait(ctx context.Context, wake <-chan struct{}, deadline <-chan time.Time, again time.Duration) bool {
	var pause <-chan time.Time
	if again > 0 {
		t := time.NewTimer(again)
		defer t.Stop()
		pause = t.C
	}
	select {
	case <-wake:
		return true
	case <-pause:
		return true
	case <-deadline:
		return false
	case <-ctx.Done():
		return false
	}
}

// nextCommand is what to send to a ramdisk that says it has an order, or when to look again (0: when woken). What was
// just sent is not sent again at once: the ramdisk may have asked before it took it in.
func (a *attempt) nextCommand(have *farrierv1.OrderRef, now time.Duration) (cmd *farrierv1.RamdiskCommand, again time.Duration) {
	c := a.command
	if c == nil {
		return nil, 0
	}
	same := have != nil && keyOf(have) == keyOf(c.Ref)
	if a.canceled {
		if d := a.cancelAt + cancelResend - now; d > 0 {
			return nil, d
		}
		a.cancelAt = now
		return &farrierv1.RamdiskCommand{Ref: c.Ref, Step: c.Step, Cancel: true}, 0
	}
	if same && have.Token >= c.Ref.Token {
		return nil, 0
	}
	if d := a.sentAt + resend - now; a.sentTok == c.Ref.Token && d > 0 {
		return nil, d
	}
	a.sentAt, a.sentTok = now, c.Ref.Token
	if c.Step == "power_off" {
		a.leaving = true
	}
	return c, 0
}
