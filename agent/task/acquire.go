package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
)

// unlockWait bounds the release of a lock. A lock that cannot be released falls free with the session.
const unlockWait = 10 * time.Second

// Options are the parameters of TaskManager's constructor.
type Options struct {
	Purpose string // shown to whom the lock is in the way; default "unspecified action"
	Task    string // names the task; default the purpose
	Wait    *Wait  // nil: DefaultWait
	Driver  string // act through this hardware type instead of the node's
}

func (o Options) withDefaults() Options {
	if o.Purpose == "" {
		o.Purpose = "unspecified action"
	}
	if o.Task == "" {
		o.Task = o.Purpose
	}
	if o.Wait == nil {
		w := DefaultWait()
		o.Wait = &w
	}
	return o
}

// Acquire takes the node's lock and makes a task of it. The node is read again after the lock is held. Locked:
// another task holds it, after the wait. NotFound: the node is not this agent's.
func (m *Manager) Acquire(ctx context.Context, node string, o Options) (*Exclusive, error) {
	o = o.withDefaults()
	if _, ok := m.Node(node); !ok {
		return nil, notOurs(node)
	}
	if m.Locker == nil {
		return nil, fault.New(fault.Unsupported, "acquire lock", "this agent takes no locks")
	}
	token, err := m.Locker.Lock(ctx, node, o.Task, o.Purpose, *o.Wait)
	if err != nil {
		return nil, fault.Wrap("acquire lock", err)
	}
	if err := m.Handle(work.Granted{Node: node, Token: token}); err != nil {
		return nil, errors.Join(fault.Wrap("acquire lock", err), m.unlock(ctx, node, token))
	}
	m.mu.Lock()
	n, ok := m.nodes[node]
	tctx, cancel := context.WithCancelCause(m.base)
	t := &Exclusive{view: view{m: m, ctx: tctx, node: n, driver: driverOf(n, o)}, cancel: cancel, purpose: o.Purpose}
	t.detach = context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	t.token.Store(token)
	if ok {
		m.held[t] = struct{}{}
	}
	m.mu.Unlock()
	if !ok {
		t.detach()
		cancel(nil)
		gone := fault.New(fault.NotFound, "acquire lock", "node %s was taken away while its lock was waited for", node)
		return nil, errors.Join(gone, m.unlock(ctx, node, token))
	}
	return t, nil
}

// AcquireShared makes a task that only reads: no lock, no token, one consistent version of the node.
func (m *Manager) AcquireShared(ctx context.Context, node string, o Options) (*Shared, error) {
	o = o.withDefaults()
	n, ok := m.Node(node)
	if !ok {
		return nil, notOurs(node)
	}
	tctx, cancel := context.WithCancel(ctx)
	return &Shared{view: view{m: m, ctx: tctx, node: n, driver: driverOf(n, o)}, cancel: cancel, options: o, parent: ctx}, nil
}

func notOurs(node string) error {
	return fault.New(fault.NotFound, "acquire", "node %s is not assigned to this agent", node).
		WithHelp("farrier ring explain %s tells which agent has it", node)
}

func driverOf(n *Node, o Options) string {
	if o.Driver != "" || n == nil {
		return o.Driver
	}
	return n.Driver
}

func (m *Manager) unlock(ctx context.Context, node string, token uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockWait)
	defer cancel()
	return fault.Wrap("release lock", m.Locker.Unlock(ctx, node, token))
}

// Release ends the task, exactly once: a second call does nothing and returns what the first did. When a function
// was given to SpawnAfter it is started on a worker and the lock is released when it ends; if no worker takes it,
// the spawn-error hook is called and the lock is released at once. body is how the caller's own work ended: after
// an error nothing is spawned. For an order's task only the outcome releases the lock, and Release ends the task.
func (t *Exclusive) Release(body error) error {
	t.release.Do(func() {
		if t.detach != nil {
			t.detach() // what is spawned outlives the caller, and ends with the Manager
		}
		if t.spawn == nil || body != nil || t.ctx.Err() != nil {
			t.failed = t.drop()
			return
		}
		err := t.m.pool.spawn(func() {
			err := t.spawned()
			if dropped := t.drop(); dropped != nil {
				t.m.Log.Warn("lock not released", "node", t.node.ID, "token", t.Token(), "err", dropped)
			}
			if err != nil {
				t.m.Log.Error("task failed", "node", t.node.ID, "token", t.Token(), "err", err)
			}
		}, t.m.resize)
		if err != nil {
			t.runHook(err)
			t.failed = t.drop()
			if t.failed == nil {
				t.failed = err
			}
		}
	})
	return t.failed
}

// spawned runs what SpawnAfter was given. A panic is an error: the lock must fall.
func (t *Exclusive) spawned() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "spawned task", "panic: %v", p)
		}
	}()
	return t.spawn(t.ctx)
}

// runHook calls the spawn-error hook. What goes wrong in it is logged and goes no further.
func (t *Exclusive) runHook(err error) {
	defer func() {
		if p := recover(); p != nil {
			t.m.Log.Error("panic in a spawn-error hook", "node", t.node.ID, "err", fmt.Sprint(p))
		}
	}()
	if t.hook != nil {
		t.hook(err)
	}
}

// drop gives the lock back, if it is our own.
func (t *Exclusive) drop() error {
	t.m.mu.Lock()
	_, ours := t.m.held[t]
	delete(t.m.held, t)
	t.m.mu.Unlock()
	lost := context.Cause(t.ctx)
	t.cancel(fault.New(fault.Aborted, "task", "released"))
	if !ours || fault.Is(lost, fault.Expired) { // the session is over, and the lock with it
		return nil
	}
	return t.m.unlock(t.ctx, t.node.ID, t.Token())
}

func (m *Manager) resize(workers int) { m.Handle(work.Resized{Workers: workers}) }

// Downgrade gives the lock back and goes on as a shared task on a fresh version of the node.
func (t *Exclusive) Downgrade(ctx context.Context) (*Shared, error) {
	if err := t.Release(fault.New(fault.Aborted, "task", "downgraded")); err != nil {
		return nil, err
	}
	return t.m.AcquireShared(ctx, t.node.ID, Options{Purpose: t.purpose, Driver: t.driver})
}

// Shared is a task that takes no lock: others may change the node meanwhile. It offers nothing that changes
// anything. Its methods are for one goroutine at a time.
type Shared struct {
	view
	cancel  context.CancelFunc
	parent  context.Context
	options Options
}

// Reader is the part of a BMC that a shared task may use.
type Reader interface {
	Power(ctx context.Context) (bmc.PowerState, error)
	BootDevice(ctx context.Context) (bmc.Boot, error)
	Identity(ctx context.Context) (bmc.Identity, error)
	Inventory(ctx context.Context) (bmc.Inventory, error)
}

// readOnly hides everything else, also from a type assertion.
type readOnly struct{ c bmc.Client }

func (r readOnly) Power(ctx context.Context) (bmc.PowerState, error)    { return r.c.Power(ctx) }
func (r readOnly) BootDevice(ctx context.Context) (bmc.Boot, error)     { return r.c.BootDevice(ctx) }
func (r readOnly) Identity(ctx context.Context) (bmc.Identity, error)   { return r.c.Identity(ctx) }
func (r readOnly) Inventory(ctx context.Context) (bmc.Inventory, error) { return r.c.Inventory(ctx) }

// Shared is true.
func (t *Shared) Shared() bool { return true }

// Read takes a turn at the node's BMC to read.
func (t *Shared) Read(ctx context.Context, fn func(context.Context, Reader) error) error {
	return t.m.Caller.Turn(ctx, t.driver, t.node.Target(), func(ctx context.Context, c bmc.Client, _ func(context.Context) error) error {
		return fn(ctx, readOnly{c})
	})
}

// Glance is Read in nobody's way: it does not wait for the BMC, Busy, and gives it up when somebody comes for it: fn's ctx ends
// then, with a cause of kind Aborted.
func (t *Shared) Glance(ctx context.Context, fn func(context.Context, Reader) error) error {
	return t.m.Caller.Glance(ctx, t.driver, t.node.Target(), func(ctx context.Context, c bmc.Client) error {
		return fn(ctx, readOnly{c})
	})
}

// Upgrade takes the lock. The node is read afresh: what was seen before may be true no longer. The shared task is
// over, whether the lock was got or not.
func (t *Shared) Upgrade(purpose string) (*Exclusive, error) {
	o := t.options
	if purpose != "" {
		o.Purpose = purpose
	}
	t.Release()
	return t.m.Acquire(t.parent, t.node.ID, o)
}

// Release ends the task. Further calls do nothing.
func (t *Shared) Release() { t.cancel() }
