package task

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/bmc/fake"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// handClock is a clock that tests move.
type handClock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *handClock) Now() time.Time { return time.Unix(0, 0) }
func (c *handClock) Boottime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}
func (c *handClock) set(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = d
}

// world is the rest of the agent, as far as a Manager sees it.
type world struct {
	*handClock
	machines *fake.Driver
	outcomes chan work.Outcome

	mu       sync.Mutex
	locked   map[string]uint64 // tokens held, by node
	next     uint64
	unlocks  int
	refuse   error // of Lock
	told     []string
	delivers []work.Order
	fences   int
}

func newWorld() *world {
	return &world{handClock: &handClock{now: time.Second}, machines: fake.New(), outcomes: make(chan work.Outcome, 100), locked: map[string]uint64{}, next: 100}
}

func (w *world) Report(o work.Outcome)              { w.outcomes <- o }
func (w *world) TornDown(node string, epoch uint64) { w.say("torn down %s %d", node, epoch) }
func (w *world) Capacity(int)                       {}
func (w *world) Assigned(n *Node)                   { w.say("assigned %s", n.ID) }
func (w *world) Forgotten(node string)              { w.say("forgotten %s", node) }
func (w *world) Cancel(o work.Order, why string)    { w.say("cancel %s: %s", o.Full(), why) }

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, fmt.Sprintf(format, args...))
}

func (w *world) Deliver(_ *Node, o work.Order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delivers = append(w.delivers, o)
}

func (w *world) Lock(_ context.Context, node, _, _ string, _ Wait) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return 0, w.refuse
	}
	if w.locked[node] != 0 {
		return 0, fault.New(fault.Locked, "lock", "%s is held", node)
	}
	w.next++
	w.locked[node] = w.next
	return w.next, nil
}

func (w *world) Unlock(_ context.Context, node string, token uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlocks++
	if w.locked[node] != token {
		return fault.New(fault.StaleToken, "unlock", "%s is held under %d, not %d", node, w.locked[node], token)
	}
	delete(w.locked, node)
	return nil
}

func (w *world) free(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.locked[node] == 0
}

func (w *world) Turn(ctx context.Context, _ string, t bmc.Target, fn func(context.Context, bmc.Client, func(context.Context) error) error) error {
	c, err := w.machines.Open(t)
	if err != nil {
		return err
	}
	return fn(ctx, c, func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fences++
		return nil
	})
}

func (w *world) Glance(ctx context.Context, driver string, t bmc.Target, fn func(context.Context, bmc.Client) error) error {
	return w.Turn(ctx, driver, t, func(ctx context.Context, c bmc.Client, _ func(context.Context) error) error { return fn(ctx, c) })
}

// start makes a manager with a session until 2.7 s on its clock, and the nodes n1 to n3.
func start(t *testing.T, w *world, dir string, c Config) (*Manager, *journal.Journal) {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Clock, c.Journal, c.Log, c.Sink, c.Ramdisk, c.Caller, c.Keeper, c.Locker = w, j, slog.New(slog.DiscardHandler), w, w, w, w, w
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	m.Handle(work.Greeted{}, work.Welcomed{Session: "s1", TTL: 2 * time.Second})
	for _, n := range []string{"n1", "n2", "n3"} {
		m.Assign(&Node{ID: n, Driver: "fake-hardware", Epoch: 1})
	}
	return m, j
}

func order(node string, step_ uint32, token uint64, ex step.Executor) work.Order {
	return work.Order{Ref: work.Ref{Node: node, Flow: 1, Step: step_, Attempt: 1}, Token: token, Interface: "power", Name: "power_on", Class: step.Set, Executor: ex}
}
