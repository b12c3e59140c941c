package waitlist

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/proposer"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

// DefaultWait is how long a request waits for a held lock when it does not say.
const DefaultWait = 3 * time.Second

const (
	maxBatch = 1024                  // commands in one proposal, and waits that end at once
	expiry   = 50 * time.Millisecond // how often waits are looked at
	rounds   = time.Second           // how often every line is looked at
)

// List knows who waits for which node, and proposes the command of the first when the node falls free. It is safe for concurrent
// use.
type List struct {
	proposer *proposer.Proposer
	clock    clock.Clock
	work     chan struct{} // capacity 1: some nodes may be free

	mu      sync.Mutex // guards the fields below
	line    *lock.Queue
	waiting map[uint64]*entry
	free    map[node.ID]bool // to be looked at
	lastID  uint64
}

// Waiter is one caller: its whole command. It leaves the line when the command is answered with anything but fault.Locked, when
// its wait is over, or when it has gone.
type Waiter struct {
	Node  node.ID
	Actor string
	Body  command.Body
	Held  error                       // the newest refusal; nil when it has not been tried
	Reply func(command.Result, error) // once, unless the caller left first; must not block
	// From is who Leave speaks of, such as a stream. A command of unknown outcome stays in the line for it, and an AcquireLock
	// that finds its own lock is granted: it may be the same request, whose answer was lost.
	From any
}

// entry is a Waiter in the line.
type entry struct {
	Waiter
	id     uint64
	header *command.Header // of a caller that made its own; nil: made when proposed
	asked  bool            // its command is proposed
}

// New is an empty List. Nobody is served until Run.
func New(p *proposer.Proposer, c clock.Clock) *List {
	return &List{proposer: p, clock: c, work: make(chan struct{}, 1), line: lock.NewQueue(), waiting: map[uint64]*entry{}, free: map[node.ID]bool{}}
}

// Propose proposes cmd, and on fault.Locked waits in the node's queue for its turn, up to wait. A negative
// wait lasts as long as ctx; 0 does not wait. Callers that wait are served in order, before any that come later.
// A refusal has a *fault.LockDetail with the queue's length. When ctx ends while the command is proposed the
// outcome is unknown.
func (q *List) Propose(ctx context.Context, cmd command.Command, wait time.Duration) (command.Result, error) {
	id := q.nodeOf(cmd.Body)
	var held error
	if id == "" || q.Len(id) == 0 {
		res, err := q.proposer.One(ctx, cmd)
		if !fault.Is(err, fault.Locked) {
			return res, err
		}
		held = err
		if detail := detailOf(err); id == "" && detail != nil {
			id = node.ID(detail.Node)
		}
	} else {
		held = q.refusal(id)
	}
	if wait == 0 || id == "" {
		return command.Result{}, q.counted(held)
	}
	return q.wait(ctx, id, cmd, held, wait)
}

// nodeOf is the node whose lock a command needs; "" when it needs none or the node is not known by that.
func (q *List) nodeOf(body command.Body) node.ID {
	switch b := body.(type) {
	case command.UpdateNode:
		return b.Node.ID
	case command.DeleteNode:
		return b.Node
	case command.CreatePort:
		return b.Port.Node
	case command.UpdatePort:
		return q.portsNode(b.Port.ID)
	case command.DeletePort:
		return q.portsNode(b.Port)
	case command.Provision:
		if v, ok := lifecycle.ParseVerb(b.Verb); ok && v != lifecycle.Abort && v != lifecycle.Delete {
			return b.Node
		}
		return "" // these set a flag without the lock; where they need it, the refusal names the node
	case command.SetPower:
		return b.Node
	case command.AcquireLock:
		return b.Node
	}
	return ""
}

func (q *List) portsNode(id string) node.ID {
	if p, ok := q.proposer.View().Port(id); ok {
		return p.Node
	}
	return ""
}

// answered is what a waiter of Propose gets.
type answered struct {
	res command.Result
	err error
}

func (q *List) wait(ctx context.Context, id node.ID, cmd command.Command, held error, wait time.Duration) (command.Result, error) {
	got := make(chan answered, 1)
	w := &entry{header: &cmd.Header, Waiter: Waiter{Node: id, Actor: cmd.Header.Actor, Body: cmd.Body, Held: held,
		Reply: func(res command.Result, err error) { got <- answered{res, err} }}}
	q.push(w, wait)
	select {
	case a := <-got:
		return a.res, a.err
	case <-ctx.Done():
	}
	if asked := q.drop(w); asked {
		return command.Result{}, fault.New(fault.UnknownOutcome, "wait for the lock", "the caller left while the command was proposed: %w", ctx.Err())
	}
	select { // it may have been answered meanwhile
	case a := <-got:
		return a.res, a.err
	default:
		return command.Result{}, q.counted(held)
	}
}

// Ask is for a caller that met a held lock, or others that wait: it is answered later, by its Reply. A negative wait has no end; with
// none it is refused at once, as when the line is full.
func (q *List) Ask(w Waiter, wait time.Duration) {
	if token, has := holds(w.Body, w.Held); has {
		w.Reply(command.Result{Token: token}, nil)
		return
	}
	if wait != 0 {
		q.push(&entry{Waiter: w}, wait)
		return
	}
	if w.Held == nil {
		w.Held = q.refusal(w.Node)
	}
	w.Reply(command.Result{}, q.counted(w.Held))
}

func (q *List) push(w *entry, wait time.Duration) {
	q.mu.Lock()
	q.lastID++
	w.id = q.lastID
	in := lock.Waiter{ID: w.id, Node: string(w.Node)}
	if wait > 0 {
		in.Deadline = q.clock.Boottime() + wait
	}
	queued := q.line.Push(in)
	if queued {
		q.waiting[w.id] = w
	}
	q.mu.Unlock()
	if !queued {
		e := fault.New(fault.Busy, "wait for the lock", "too many callers wait")
		if d := detailOf(w.Held); d != nil {
			e = e.WithDetail(d)
		}
		w.Reply(command.Result{}, e.WithHelp("wait until the task on the node ends: farrier lock list"))
		return
	}
	// The lock may have fallen free since the refusal; the planner, which saw that, found nobody waiting.
	q.Look(w.Node)
}

// Look says that the node may be free. Anybody may call it at any time.
func (q *List) Look(id node.ID) {
	q.mu.Lock()
	some := q.line.Len(string(id)) > 0
	if some {
		q.free[id] = true
	}
	q.mu.Unlock()
	if some {
		q.signal()
	}
}

// LookAll looks at every line.
func (q *List) LookAll() {
	q.mu.Lock()
	q.line.Nodes(func(id string) bool {
		q.free[node.ID(id)] = true
		return true
	})
	q.mu.Unlock()
	q.signal()
}

func (q *List) signal() {
	select {
	case q.work <- struct{}{}:
	default:
	}
}

// Len is how many wait for a node.
func (q *List) Len(id node.ID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.Len(string(id))
}

// Total is how many wait.
func (q *List) Total() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.Total()
}

// drop takes w out of the line; asked tells that its command is proposed right now.
func (q *List) drop(w *entry) (asked bool) {
	q.mu.Lock()
	asked = w.asked && q.waiting[w.id] == w
	q.remove(w)
	q.mu.Unlock()
	q.Look(w.Node)
	return asked
}

// remove is false when w had left already. The caller holds mu.
func (q *List) remove(w *entry) bool {
	if q.waiting[w.id] != w {
		return false
	}
	delete(q.waiting, w.id)
	return q.line.Drop(w.id)
}

// Leave drops the waiters From somebody who is gone.
func (q *List) Leave(from any) {
	q.mu.Lock()
	var gone []*entry
	for _, w := range q.waiting {
		if w.From == from {
			gone = append(gone, w)
		}
	}
	q.mu.Unlock()
	for _, w := range gone {
		q.drop(w)
	}
}

// Fail answers every waiter: the leadership is lost.
func (q *List) Fail(err error) {
	q.mu.Lock()
	var all []*entry
	for _, w := range q.waiting {
		if !w.asked { // its proposal answers
			all = append(all, w)
		}
	}
	for _, w := range all {
		q.remove(w)
	}
	q.mu.Unlock()
	for _, w := range all {
		w.Reply(command.Result{}, err)
	}
}

// Run serves the queue until ctx ends.
func (q *List) Run(ctx context.Context) error {
	over := time.NewTicker(expiry)
	defer over.Stop()
	all := time.NewTicker(rounds) // a release whose stream ended before its answer wakes nobody
	defer all.Stop()
	for {
		select {
		case <-ctx.Done():
			q.Fail(fault.New(fault.Unavailable, "wait for the lock", "the coordinator stops"))
			return nil
		case <-over.C:
			q.expire()
		case <-all.C:
			q.LookAll()
		case <-q.work:
			q.serve(ctx)
		}
	}
}

// expire answers those whose wait is over.
func (q *List) expire() {
	now := q.clock.Boottime()
	q.mu.Lock()
	if q.line.Total() == 0 {
		q.mu.Unlock()
		return
	}
	if len(q.free) > 0 {
		q.signal()
	}
	var over []*entry
	for _, id := range q.line.Expired(now, maxBatch, nil) {
		if w := q.waiting[id]; !w.asked { // its proposal answers, whatever that is
			over = append(over, w)
			q.remove(w)
		}
	}
	q.mu.Unlock()
	for _, w := range over {
		w.Reply(command.Result{}, q.counted(w.Held))
		q.Look(w.Node)
	}
}

// serve proposes, as one, the first command of every line whose node is free.
func (q *List) serve(ctx context.Context) {
	batch := q.first()
	if len(batch) == 0 {
		return
	}
	cmds := make([]command.Command, len(batch))
	for i, w := range batch {
		if w.header != nil {
			cmds[i] = command.Command{Header: *w.header, Body: w.Body}
		} else {
			cmds[i] = q.proposer.Stamp(w.Actor, w.Body)[0]
		}
	}
	results, err := q.proposer.All(ctx, cmds)
	for i, w := range batch {
		switch {
		case err == nil:
			q.finish(w, results[i], results[i].Err)
		case w.From == nil:
			q.finish(w, command.Result{}, err)
		default:
			q.again(w)
		}
	}
}

// again leaves an agent's request in the line after a proposal of unknown outcome: the expiry's next round tries
// it once more, unless its stream has ended by then. Should it have been granted, it is found to be held.
func (q *List) again(w *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.asked = false
	if q.waiting[w.id] == w {
		q.free[w.Node] = true
	}
}

// first picks the next waiter of each node that is to be looked at and is free.
func (q *List) first() []*entry {
	v := q.proposer.View()
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*entry
	for id := range q.free {
		if len(batch) == maxBatch {
			q.signal()
			break
		}
		delete(q.free, id)
		head, ok := q.line.Next(string(id))
		if !ok {
			continue
		}
		w := q.waiting[head.ID]
		if n, ok := v.Node(id); w.asked || ok && n.Lock.Held() && !w.has(n) {
			continue // its answer, or that of the release, looks again
		}
		w.asked = true
		batch = append(batch, w)
	}
	return batch
}

// has tells whether the lock is w's already: see again.
func (w *entry) has(n *node.Node) bool {
	ask, ok := w.Body.(command.AcquireLock)
	return ok && w.From != nil && n.Lock.Session == ask.Session && n.Lock.Task == ask.Task
}

// finish takes the answer of one proposed waiter.
func (q *List) finish(w *entry, res command.Result, err error) {
	if w.From != nil {
		if token, has := holds(w.Body, err); has {
			res, err = command.Result{Token: token}, nil
		}
	}
	again := fault.Is(err, fault.Locked) && !q.expired(w)
	q.mu.Lock()
	w.asked = false
	present := q.waiting[w.id] == w
	if again {
		w.Held = err
	} else if present {
		q.remove(w)
	}
	q.mu.Unlock()
	if present && !again {
		if fault.Is(err, fault.Locked) {
			err = q.counted(err)
		}
		w.Reply(res, err)
	}
	if again && q.proposer.View().Index() <= res.Index {
		q.again(w) // nothing has happened since the refusal
		return
	}
	q.Look(w.Node) // the next in line, or the same again if the lock fell free meanwhile
}

func (q *List) expired(w *entry) bool {
	now := q.clock.Boottime()
	q.mu.Lock()
	defer q.mu.Unlock()
	head, ok := q.line.Next(string(w.Node))
	return ok && head.ID == w.id && head.Deadline != 0 && head.Deadline <= now
}

// refusal is what a command would be told that finds others waiting.
func (q *List) refusal(id node.ID) error {
	d := &fault.LockDetail{Node: string(id)}
	if n, ok := q.proposer.View().Node(id); ok && n.Lock.Held() {
		d.Holder, d.Session, d.Task, d.Purpose = n.Lock.Holder, n.Lock.Session, n.Lock.Task, n.Lock.Purpose
		d.Token, d.SinceUnixNano = uint64(n.Lock.Token), n.Lock.Since.UnixNano()
		return fault.New(fault.Locked, "acquire lock", "node %s is locked by %s: %s", id, d.Holder, d.Purpose).WithDetail(d)
	}
	return fault.New(fault.Locked, "acquire lock", "others wait for node %s", id).WithDetail(d)
}

// counted adds the length of the queue to a refusal.
func (q *List) counted(err error) error {
	d := detailOf(err)
	if d == nil {
		return err
	}
	c := *d
	c.Queued = uint32(q.Len(node.ID(d.Node)))
	e := fault.Wrap("", err).(*fault.Error)
	return e.WithDetail(&c)
}

// detailOf is what a refusal tells of the lock that was in the way, or nil.
func detailOf(err error) *fault.LockDetail {
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Locked {
		return nil
	}
	d, _ := e.Detail.(*fault.LockDetail)
	return d
}

// holds tells whether the lock that was in the way is the one that the command asks for, and its token: the caller asked again,
// because the answer was lost.
func holds(body command.Body, held error) (lock.Token, bool) {
	ask, ok := body.(command.AcquireLock)
	d := detailOf(held)
	if !ok || d == nil || d.Session != ask.Session || d.Task != ask.Task {
		return 0, false
	}
	return lock.Token(d.Token), true
}
