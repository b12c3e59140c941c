package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// Config is what a Manager needs. Locker and Lifecycle may be nil: then Acquire takes no exclusive locks of its
// own, and ProcessEvent is Unsupported.
type Config struct {
	Clock     clock.Clock
	Journal   *journal.Journal
	Log       *slog.Logger
	Sink      Sink
	Ramdisk   Ramdisk
	Caller    Caller
	Keeper    Keeper
	Locker    Locker
	Lifecycle Lifecycle
	Executors map[step.Executor]Executor
	Workers   int // default 300; 5 % of them are kept for tasks that the agent starts itself
}

// Manager carries out what work decides. It is safe for concurrent use.
type Manager struct {
	Config
	pool pool

	mu      sync.Mutex // guards the fields below; the journal's batch is joined under it, never waited for
	work    *work.State
	runs    map[work.Ref]*Exclusive // attempts on workers
	held    map[*Exclusive]struct{} // tasks under locks of our own
	nodes   map[string]*Node
	changed chan struct{}   // closed and replaced whenever the right to act may have come
	base    context.Context // of all attempts; ends with Run
	end     context.CancelCauseFunc
	closed  bool
	broken  error         // the journal's first failure: nothing begins after it
	failed  chan struct{} // closed with it
	keep    sync.Mutex    // one Keeper call at a time, in order; taken before mu
}

// New makes a Manager and restores what the journal holds.
func New(c Config) (*Manager, error) {
	if c.Workers == 0 {
		c.Workers = 300
	}
	m := &Manager{
		Config: c, runs: make(map[work.Ref]*Exclusive), held: make(map[*Exclusive]struct{}),
		nodes: make(map[string]*Node), changed: make(chan struct{}), failed: make(chan struct{}),
	}
	m.base, m.end = context.WithCancelCause(context.Background())
	m.pool = pool{size: c.Workers, reserved: (c.Workers*5 + 99) / 100}
	m.work = work.New(m.pool.forOrders(0))
	var records []work.Record
	err := c.Journal.Each(journal.Runs, func(key string, value []byte) error {
		var r work.Record
		if err := json.Unmarshal(value, &r); err != nil || r.Node != key {
			return fault.New(fault.Corrupt, "restore run", "node %s: %v", key, err)
		}
		records = append(records, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.work.Step(c.Clock.Boottime(), work.Restored{Records: records})
	return m, nil
}

// Run lets time pass, and ends the workers when ctx ends, or at once when the journal fails: an agent that cannot
// remember must not act. Attempts that are cut short by that are open still, and run again as resumed after the
// restart. A Manager is of no use after Run.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.Handle(work.Ticked{})
			if err := m.Journal.Flush(); err != nil {
				m.fail(err)
			}
		case <-m.failed:
			m.stop()
			return m.broken
		case <-ctx.Done():
			m.stop()
			return errors.Join(ctx.Err(), m.Journal.Flush())
		}
	}
}

// stop ends the workers and waits for them.
func (m *Manager) stop() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.end(fault.New(fault.Aborted, "run", "the agent is stopping"))
	m.pool.wait()
}

// fail ends all that runs: the journal cannot be written.
func (m *Manager) fail(err error) {
	m.mu.Lock()
	first := m.broken == nil
	if first {
		m.broken, m.closed = err, true
		close(m.failed)
	}
	m.mu.Unlock()
	if first {
		m.Log.Error("the journal cannot be written: nothing more is done", "err", err)
		m.end(fault.New(fault.Aborted, "run", "the journal cannot be written"))
	}
}

// Handle takes events in, in order, and carries out what follows. It returns when what had to be on disk is, or with
// the error that kept it from getting there: then nothing was carried out, and Run ends with that error.
func (m *Manager) Handle(events ...work.Event) error {
	var todo errand
	m.mu.Lock()
	if m.broken != nil {
		m.mu.Unlock()
		return m.broken
	}
	for _, ev := range events {
		for _, e := range m.work.Step(m.Clock.Boottime(), fitting(ev)) {
			m.carry(e, &todo)
		}
	}
	free := m.work.Free()
	m.mu.Unlock()
	if todo.commit != nil {
		if err := todo.commit.Wait(); err != nil {
			m.fail(err)
			return err // unreported outcomes come with the next incarnation
		}
	}
	m.finish(todo, free)
	for _, ev := range events {
		switch e := ev.(type) {
		case work.Ended:
			m.sessionOver(e.Reason)
		case work.Welcomed:
			if !e.Resumed {
				m.sessionOver("another was opened")
			}
		}
	}
	return nil
}

// maxOutcome is what is left of a journal's record for its outcome, in bytes of JSON.
const maxOutcome = journal.MaxValue - 4<<10

// fitting makes an outcome that no record can hold a failure that says so: what a ramdisk says must not stop the agent.
func fitting(ev work.Event) work.Event {
	switch e := ev.(type) {
	case work.Finished:
		return work.Finished{Outcome: fit(e.Outcome)}
	case work.Reported:
		return work.Reported{Outcome: fit(e.Outcome)}
	}
	return ev
}

func fit(o work.Outcome) work.Outcome {
	size := len(o.Error) + len(o.Inventory)
	for k, v := range o.Facts {
		size += len(k) + len(v) + 8
	}
	if size < maxOutcome/8 { // JSON makes at most six bytes of one
		return o
	}
	if text, err := json.Marshal(o); err == nil && len(text) <= maxOutcome {
		return o
	}
	return work.Failed(work.Order{Ref: o.Ref, Token: o.Token, BootID: o.BootID},
		fault.New(fault.TooLarge, "record outcome", "what the step found has about %d bytes, more than the agent records", size))
}

// errand is what is left to do outside the lock, in this order.
type errand struct {
	commit  *journal.Commit // waited for first
	deliver []work.Order
	cancel  []work.Stop
	report  []work.Outcome
	forget  []work.Forget
	sized   bool
}

// carry does what may be done under the lock, and notes the rest.
func (m *Manager) carry(e work.Effect, todo *errand) {
	switch e := e.(type) {
	case work.Lease:
		m.wake()
	case work.Retoken:
		if t := m.runs[e.Ref]; t != nil {
			t.token.Store(e.Token)
		}
		m.wake()
	case work.Save:
		m.save(e, todo)
	case work.Start:
		if m.closed {
			return
		}
		t := m.forOrder(e.Order)
		m.runs[e.Order.Ref] = t
		m.pool.start(func() { m.run(t) })
		todo.sized = true
	case work.Deliver:
		todo.deliver = append(todo.deliver, e.Order)
	case work.Stop:
		if t := m.runs[e.Order.Ref]; t != nil {
			t.cancel(fault.New(fault.Aborted, e.Order.Full(), "%s", e.Reason))
		} else {
			todo.cancel = append(todo.cancel, e)
		}
	case work.Report:
		todo.report = append(todo.report, e.Outcome)
	case work.Forget:
		delete(m.nodes, e.Node)
		todo.forget = append(todo.forget, e)
	case work.Erase:
		m.Journal.Put(journal.Entry{Table: journal.Runs, Key: e.Node})
	case work.Overflow:
		m.Log.Error("a node is not looked after: the agent has as many as it can have", "node", e.Node, "nodes", work.MaxNodes)
	case work.Refuse:
		m.Log.Warn("order refused", "node", e.Order.Node, "step", e.Order.Full(), "token", e.Order.Token, "err", e.Err)
	case work.Reject:
		m.Log.Warn("a ramdisk's report refused", "node", e.Outcome.Node, "step", e.Outcome.Step, "attempt", e.Outcome.Attempt, "err", e.Err)
	}
}

func (m *Manager) save(e work.Save, todo *errand) {
	value, err := json.Marshal(e.Record)
	if err != nil {
		panic(fmt.Sprintf("task: record does not marshal: %v", err)) // plain data
	}
	commit := m.Journal.Put(journal.Entry{Table: journal.Runs, Key: e.Record.Node, Value: value})
	if e.Wait {
		todo.commit = commit
	}
}

// wake tells those who wait for the right to act to look again.
func (m *Manager) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Manager) finish(todo errand, free int) {
	for _, o := range todo.deliver {
		node, ok := m.Node(o.Node)
		if !ok {
			node = &Node{ID: o.Node}
		}
		m.Ramdisk.Deliver(node, o)
	}
	for _, s := range todo.cancel {
		m.Ramdisk.Cancel(s.Order, s.Reason)
	}
	for _, o := range todo.report {
		m.Sink.Report(o)
	}
	for _, f := range todo.forget {
		m.keep.Lock()
		m.Keeper.Forgotten(f.Node)
		m.keep.Unlock()
		if f.Ack {
			m.Sink.TornDown(f.Node, f.Epoch)
		}
	}
	if todo.sized || len(todo.report) > 0 {
		m.Sink.Capacity(free)
	}
}

// run is one attempt on a worker.
func (m *Manager) run(t *Exclusive) {
	o := *t.order
	ctx := t.ctx
	if o.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Deadline, fault.New(fault.Timeout, o.Full(), "not done within %v", o.Deadline))
		defer cancel()
	}
	out := m.execute(ctx, t)
	cause := context.Cause(ctx)
	stopped := !out.OK && cause != nil && fault.Is(cause, fault.Aborted)
	if stopped {
		out = work.Failed(o, cause)
	}
	t.close()
	m.mu.Lock()
	if m.runs[o.Ref] == t {
		delete(m.runs, o.Ref)
	}
	closed := m.closed
	m.mu.Unlock()
	m.pool.ended()
	if closed && !out.OK {
		return // cut short by our own end: the attempt is open still
	}
	switch {
	case stopped:
		m.Log.Info("step stopped", "node", o.Node, "step", o.Full(), "attempt", o.Attempt, "token", out.Token, "err", cause)
	case !out.OK:
		m.Log.Warn("step failed", "node", o.Node, "step", o.Full(), "attempt", o.Attempt, "token", out.Token, "err", out.Error)
	}
	m.Handle(work.Finished{Outcome: out})
}

// execute calls the executor; a panic is the step's failure, not the agent's.
func (m *Manager) execute(ctx context.Context, t *Exclusive) (out work.Outcome) {
	o := *t.order
	defer func() {
		if p := recover(); p != nil {
			out = work.Failed(o, fault.New(fault.Internal, o.Full(), "panic: %v", p))
			m.Log.Error("panic in a step", "node", o.Node, "step", o.Full(), "err", p)
		}
	}()
	ex := m.Executors[o.Executor]
	if ex == nil {
		return work.Failed(o, fault.New(fault.Unsupported, o.Full(), "this agent runs no %s steps", o.Executor))
	}
	out = ex.Run(ctx, t)
	out.Token = t.Token()
	return out
}

// Assign takes an assignment in: a new node, or a newer version of one.
func (m *Manager) Assign(n *Node) {
	m.keep.Lock()
	m.mu.Lock()
	m.nodes[n.ID] = n
	m.mu.Unlock()
	m.Keeper.Assigned(n)
	m.keep.Unlock()
	m.Handle(work.Assigned{Node: n.ID, Token: n.Token, Epoch: n.Epoch})
}

// Node is the node as it was assigned last.
func (m *Manager) Node(id string) (*Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.nodes[id]
	return n, ok
}

// Resting tells whether the agent may look at a node of its own accord: nothing is ordered for it, no task here holds its lock, and
// the lease is fresh.
func (m *Manager) Resting(node string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t := range m.held {
		if t.node.ID == node {
			return false
		}
	}
	return m.work.Rests(node) && m.Clock.Boottime() < m.work.LeaseUntil()
}

// Holding is what hello says.
type Holding struct {
	Session     string
	Unconfirmed []work.Outcome
	Open        []work.Order
	Free        int
}

// Holding is all that the agent holds.
func (m *Manager) Holding() Holding {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Holding{m.work.Session(), m.work.Unconfirmed(), m.work.Open(), m.work.Free()}
}

// LeaseUntil is the boottime before which effects on BMCs may start.
func (m *Manager) LeaseUntil() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.work.LeaseUntil()
}

// sessionOver ends the tasks under locks of our own: the coordinators have let those locks fall free.
func (m *Manager) sessionOver(reason string) {
	m.mu.Lock()
	held := make([]*Exclusive, 0, len(m.held))
	for t := range m.held {
		held = append(held, t)
	}
	m.mu.Unlock()
	for _, t := range held {
		t.lose(fault.New(fault.Expired, "hold lock", "the session is over: %s", reason))
	}
}
