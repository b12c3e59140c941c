package task

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
)

// view is what both kinds of task offer. Its methods are for one goroutine at a time.
type view struct {
	m      *Manager
	ctx    context.Context
	node   *Node
	driver string
	ports  []Port
	loaded bool
}

// Context ends when the task is over: released, stopped, or its lock lost.
func (v *view) Context() context.Context { return v.ctx }

// Node is the version of the node that the task works on.
func (v *view) Node() *Node { return v.node }

// Driver is the hardware type that the task acts through.
func (v *view) Driver() string { return v.driver }

// Ports are the node's ports, copied at the first call and kept.
func (v *view) Ports() []Port {
	if !v.loaded {
		v.ports, v.loaded = append([]Port(nil), v.node.Ports...), true
	}
	return v.ports
}

func (v *view) reload(n *Node) { v.node, v.ports, v.loaded = n, nil, false }

// Exclusive is a task that holds the node's lock. Its methods are for one goroutine at a time; Token may be called
// from any.
type Exclusive struct {
	view
	cancel  context.CancelCauseFunc
	detach  func() bool // makes the task outlive its caller; nil for an order's
	order   *work.Order // nil: under a lock that the agent asked for
	token   atomic.Uint64
	purpose string

	spawn func(context.Context) error
	hook  func(error)

	release sync.Once
	failed  error // of the release
}

// forOrder makes the task of an order. It is called under m.mu.
func (m *Manager) forOrder(o work.Order) *Exclusive {
	n := m.nodes[o.Node]
	if n == nil {
		n = &Node{ID: o.Node}
	}
	ctx, cancel := context.WithCancelCause(m.base)
	t := &Exclusive{view: view{m: m, ctx: ctx, node: n, driver: n.Driver}, cancel: cancel, order: &o, purpose: o.Full()}
	t.token.Store(o.Token)
	return t
}

// Shared is false.
func (t *Exclusive) Shared() bool { return false }

// Order is the order behind the task; the zero Order when there is none.
func (t *Exclusive) Order() work.Order {
	if t.order == nil {
		return work.Order{}
	}
	o := *t.order
	o.Token = t.Token()
	return o
}

// Token is the fencing token. It may rise while an order's task runs.
func (t *Exclusive) Token() uint64 { return t.token.Load() }

// Purpose is what the task is for.
func (t *Exclusive) Purpose() string { return t.purpose }

// Upgrade only changes the purpose: the task is exclusive already.
func (t *Exclusive) Upgrade(purpose string) { t.purpose = purpose }

// Intend waits for the right to begin an effect on the BMC and puts the intent on disk. It returns nil only while
// that right holds: the intent is written, the lease is fresh, the token is the newest, the attempt is the node's. ctx
// bounds the wait. A lock of our own needs no intent: its token was on disk before Acquire returned, it ends with the
// process, and the next owner reads the world first.
func (t *Exclusive) Intend(ctx context.Context) error {
	for {
		if err := t.await(ctx); err != nil {
			return err
		}
		if t.order != nil {
			if err := t.m.Handle(work.Intending{Ref: t.order.Ref}); err != nil {
				return fault.Wrap("record intent", err)
			}
		}
		if t.may() == nil { // the disk may have taken long
			return nil
		}
	}
}

func (t *Exclusive) may() error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	return t.mayLocked()
}

func (t *Exclusive) mayLocked() error {
	if t.m.broken != nil {
		return fault.New(fault.Aborted, "begin effect", "the journal cannot be written")
	}
	now := t.m.Clock.Boottime()
	if t.order != nil {
		return t.m.work.May(now, t.order.Ref)
	}
	return t.m.work.MayHold(now, t.node.ID, t.Token())
}

// await returns when the task may act. A lapsed lease may be renewed, and an order may get the newer token; a lock
// of our own does not come back.
func (t *Exclusive) await(ctx context.Context) error {
	for {
		t.m.mu.Lock()
		err, changed := t.mayLocked(), t.m.changed
		t.m.mu.Unlock()
		switch {
		case err == nil:
			return nil
		case fault.Is(err, fault.Aborted), t.order == nil && fault.Is(err, fault.StaleToken):
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.New(fault.KindOf(context.Cause(ctx)), "wait for the right to act", "%w (%w)", context.Cause(ctx), err)
		}
	}
}

// Turn takes a turn at the node's BMC: fn has it to itself. Every effect goes through do, which awaits the right to
// act, ends earlier owners' sessions, puts the intent on disk, and then calls effect with the deadline of one
// changing call. Reads need no do.
func (t *Exclusive) Turn(ctx context.Context, fn func(ctx context.Context, c bmc.Client, do Do) error) error {
	return t.m.Caller.Turn(ctx, t.driver, t.node.Target(), func(ctx context.Context, c bmc.Client, fence func(context.Context) error) error {
		return fn(ctx, c, func(ctx context.Context, deadline time.Duration, effect func(context.Context) error) error {
			return t.do(ctx, deadline, fence, effect)
		})
	})
}

// Do carries one effect out. See Turn.
type Do = func(ctx context.Context, deadline time.Duration, effect func(context.Context) error) error

func (t *Exclusive) do(ctx context.Context, deadline time.Duration, fence, effect func(context.Context) error) error {
	if err := t.Intend(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fault.New(fault.Timeout, "change", "the BMC did not do it within %v", deadline))
	defer cancel()
	if err := fence(ctx); err != nil {
		return err
	}
	if err := t.may(); err != nil { // the BMC may have taken long to answer
		return fault.New(fault.UnknownOutcome, "begin effect", "%w", err)
	}
	return effect(ctx)
}

// ResumeCleaning fires resume, keeping manageable as the target when the clean was a manual one.
func (t *Exclusive) ResumeCleaning(ctx context.Context) error {
	ev := Event{Name: "resume"}
	if t.node.TargetProvisionState == "manageable" {
		ev.Target = "manageable"
	}
	return t.ProcessEvent(ctx, ev)
}

// Event is a transition to ask for, as in TaskManager.process_event.
type Event struct {
	Name      string
	Target    string // overrides the table's target
	LastError string
	// Callback is work that follows under the lock, spawned when the task is released (see SpawnAfter).
	Callback func(context.Context) error
	// OnSpawnError is called when no worker could take Callback, with the state before the event.
	OnSpawnError func(err error, before *Node)
}

// ProcessEvent asks for the transition. On IllegalState the node is as it was. With a callback, that is spawned
// after the release of the task, and the lock is kept until it ends.
func (t *Exclusive) ProcessEvent(ctx context.Context, ev Event) error {
	if t.m.Lifecycle == nil {
		return fault.New(fault.Unsupported, "process event", "%s: this agent cannot ask for transitions", ev.Name).
			WithHelp("a node's state is moved by the outcome of an order: ask a coordinator for the verb")
	}
	before := t.node
	after, err := t.m.Lifecycle.Fire(ctx, Transition{
		Node: t.node.ID, Event: ev.Name, Token: t.Token(), Target: ev.Target, LastError: ev.LastError,
		HasCallback: ev.Callback != nil, Order: t.order,
	})
	if err != nil {
		return fault.Wrap("process event "+ev.Name, err)
	}
	t.reload(after)
	if ev.Callback != nil {
		t.SpawnAfter(ev.Callback)
		if ev.OnSpawnError != nil {
			t.SetSpawnErrorHook(func(err error) { ev.OnSpawnError(err, before) })
		}
	}
	return nil
}

// SpawnAfter makes Release start fn on a worker; the lock is kept until fn ends, whichever way. fn's context does not end
// with that of Acquire's caller, but with the session and with the Manager.
func (t *Exclusive) SpawnAfter(fn func(context.Context) error) { t.spawn = fn }

// SetSpawnErrorHook sets what is called when SpawnAfter's function could not be started. It is not called for
// what the function returns.
func (t *Exclusive) SetSpawnErrorHook(fn func(error)) { t.hook = fn }

// lose ends the task: its lock is gone.
func (t *Exclusive) lose(cause error) { t.cancel(cause) }

// close ends an order's task: the coordinators release the lock when the outcome is in.
func (t *Exclusive) close() { t.release.Do(func() { t.cancel(nil) }) }
