package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// DefaultWait is how long a request waits for a held lock when it does not say.
const DefaultWait = 3 * time.Second

// waitlist is the lock queue's shell: it knows who waits for which node, and proposes the command of the first
// when the node falls free. A waiter is its whole command; it leaves the line when its command is answered with
// anything but fault.Locked, when its wait is over, or when its caller has gone.
type waitlist struct {
	d    *Dispatch
	work chan struct{} // capacity 1: some nodes may be free

	mu      sync.Mutex // guards the fields below
	line    *lock.Queue
	waiting map[uint64]*waiter
	free    map[node.ID]bool // to be looked at
	lastID  uint64
}

// waiter is one caller in the queue.
type waiter struct {
	id     uint64
	node   node.ID
	actor  string
	header *command.Header // of a caller that made its own; nil: made when proposed
	body   command.Body
	held   error                       // the newest refusal
	reply  func(command.Result, error) // once, unless the caller left first; must not block
	link   *link                       // nil: a caller of ProposeQueued
	asked  bool                        // its command is proposed
}

func newWaitlist(d *Dispatch) *waitlist {
	return &waitlist{d: d, work: make(chan struct{}, 1), line: lock.NewQueue(), waiting: map[uint64]*waiter{}, free: map[node.ID]bool{}}
}

// ProposeQueued proposes cmd, and on fault.Locked waits in the node's queue for its turn, up to wait. A negative
// wait lasts as long as ctx; 0 does not wait. Callers that wait are served in order, before any that come later.
// A refusal has a *fault.LockDetail with the queue's length. When ctx ends while the command is proposed the
// outcome is unknown.
func (d *Dispatch) ProposeQueued(ctx context.Context, cmd command.Command, wait time.Duration) (command.Result, error) {
	id := d.nodeOf(cmd.Body)
	var held error
	if id == "" || d.waiters.len(id) == 0 {
		res, err := d.proposeOne(ctx, cmd)
		if !fault.Is(err, fault.Locked) {
			return res, err
		}
		held = err
		if detail := lockDetail(err); id == "" && detail != nil {
			id = node.ID(detail.Node)
		}
	} else {
		held = d.waiters.refusal(id)
	}
	if wait == 0 || id == "" {
		return command.Result{}, d.waiters.counted(held)
	}
	return d.waiters.wait(ctx, id, cmd, held, wait)
}

func (d *Dispatch) proposeOne(ctx context.Context, cmd command.Command) (command.Result, error) {
	results, err := d.cfg.Replica.Propose(ctx, cmd)
	if err != nil {
		return command.Result{}, err
	}
	return results[0], results[0].Err
}

// nodeOf is the node whose lock a command needs; "" when it needs none or the node is not known by that.
func (d *Dispatch) nodeOf(body command.Body) node.ID {
	switch b := body.(type) {
	case command.UpdateNode:
		return b.Node.ID
	case command.DeleteNode:
		return b.Node
	case command.CreatePort:
		return b.Port.Node
	case command.UpdatePort:
		return d.portsNode(b.Port.ID)
	case command.DeletePort:
		return d.portsNode(b.Port)
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

func (d *Dispatch) portsNode(id string) node.ID {
	if p, ok := d.cfg.Replica.View().Port(id); ok {
		return p.Node
	}
	return ""
}

// answered is what a waiter of ProposeQueued gets.
type answered struct {
	res command.Result
	err error
}

func (q *waitlist) wait(ctx context.Context, id node.ID, cmd command.Command, held error, wait time.Duration) (command.Result, error) {
	got := make(chan answered, 1)
	w := &waiter{node: id, actor: cmd.Header.Actor, header: &cmd.Header, body: cmd.Body, held: held,
		reply: func(res command.Result, err error) { got <- answered{res, err} }}
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

// push puts w into its node's line. It is refused when the line is full.
func (q *waitlist) push(w *waiter, wait time.Duration) {
	q.mu.Lock()
	q.lastID++
	w.id = q.lastID
	entry := lock.Waiter{ID: w.id, Node: string(w.node)}
	if wait > 0 {
		entry.Deadline = q.d.cfg.Clock.Boottime() + wait
	}
	queued := q.line.Push(entry)
	if queued {
		q.waiting[w.id] = w
	}
	q.mu.Unlock()
	if !queued {
		e := fault.New(fault.Busy, "wait for the lock", "too many callers wait")
		if d := lockDetail(w.held); d != nil {
			e = e.WithDetail(d)
		}
		w.reply(command.Result{}, e.WithHelp("wait until the task on the node ends: farrier lock list"))
		return
	}
	// The lock may have fallen free since the refusal; the planner, which saw that, found nobody waiting.
	q.look(w.node)
}

// look says that the node may be free. Anybody may call it at any time.
func (q *waitlist) look(id node.ID) {
	q.mu.Lock()
	some := q.line.Len(string(id)) > 0
	if some {
		q.free[id] = true
	}
	q.mu.Unlock()
	if some {
		signal(q.work)
	}
}

// lookAll looks at every line.
func (q *waitlist) lookAll() {
	q.mu.Lock()
	q.line.Nodes(func(id string) bool {
		q.free[node.ID(id)] = true
		return true
	})
	q.mu.Unlock()
	signal(q.work)
}

func (q *waitlist) len(id node.ID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.Len(string(id))
}

func (q *waitlist) total() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.Total()
}

// drop takes w out of the line; asked tells that its command is proposed right now.
func (q *waitlist) drop(w *waiter) (asked bool) {
	q.mu.Lock()
	asked = w.asked && q.waiting[w.id] == w
	q.remove(w)
	q.mu.Unlock()
	q.look(w.node)
	return asked
}

// remove is false when w had left already. The caller holds mu.
func (q *waitlist) remove(w *waiter) bool {
	if q.waiting[w.id] != w {
		return false
	}
	delete(q.waiting, w.id)
	return q.line.Drop(w.id)
}

// leave drops the waiters of a stream that is over.
func (q *waitlist) leave(l *link) {
	q.mu.Lock()
	var gone []*waiter
	for _, w := range q.waiting {
		if w.link == l {
			gone = append(gone, w)
		}
	}
	q.mu.Unlock()
	for _, w := range gone {
		q.drop(w)
	}
}

// fail answers every waiter: the leadership is lost.
func (q *waitlist) fail(err error) {
	q.mu.Lock()
	var all []*waiter
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
		w.reply(command.Result{}, err)
	}
}

// run serves the queue.
func (q *waitlist) run(ctx context.Context) error {
	expiry := time.NewTicker(50 * time.Millisecond)
	defer expiry.Stop()
	all := time.NewTicker(time.Second) // a release whose stream ended before its answer wakes nobody
	defer all.Stop()
	for {
		select {
		case <-ctx.Done():
			q.fail(fault.New(fault.Unavailable, "wait for the lock", "the coordinator stops"))
			return nil
		case <-expiry.C:
			q.expire()
		case <-all.C:
			q.lookAll()
		case <-q.work:
			q.serve(ctx)
		}
	}
}

// expire answers those whose wait is over.
func (q *waitlist) expire() {
	now := q.d.cfg.Clock.Boottime()
	q.mu.Lock()
	if q.line.Total() == 0 {
		q.mu.Unlock()
		return
	}
	if len(q.free) > 0 {
		signal(q.work)
	}
	var over []*waiter
	for _, id := range q.line.Expired(now, maxBatch, nil) {
		if w := q.waiting[id]; !w.asked { // its proposal answers, whatever that is
			over = append(over, w)
			q.remove(w)
		}
	}
	q.mu.Unlock()
	for _, w := range over {
		w.reply(command.Result{}, q.counted(w.held))
		q.look(w.node)
	}
}

// serve proposes, as one, the first command of every line whose node is free.
func (q *waitlist) serve(ctx context.Context) {
	batch := q.first()
	if len(batch) == 0 {
		return
	}
	cmds := make([]command.Command, len(batch))
	for i, w := range batch {
		cmds[i] = q.d.commands(w.actor, []command.Body{w.body})[0]
		if w.header != nil {
			cmds[i].Header = *w.header
		}
	}
	results, err := q.d.proposeAll(ctx, cmds)
	for i, w := range batch {
		switch {
		case err == nil:
			q.finish(w, results[i], results[i].Err)
		case w.link == nil:
			q.finish(w, command.Result{}, err)
		default:
			q.again(w)
		}
	}
}

// again leaves an agent's request in the line after a proposal of unknown outcome: the expiry's next round tries
// it once more, unless its stream has ended by then. Should it have been granted, it is found to be held.
func (q *waitlist) again(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.asked = false
	if q.waiting[w.id] == w {
		q.free[w.node] = true
	}
}

// first picks the next waiter of each node that is to be looked at and is free.
func (q *waitlist) first() []*waiter {
	v := q.d.cfg.Replica.View()
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*waiter
	for id := range q.free {
		if len(batch) == maxBatch {
			signal(q.work)
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
func (w *waiter) has(n *node.Node) bool {
	ask, ok := w.body.(command.AcquireLock)
	return ok && w.link != nil && n.Lock.Session == ask.Session && n.Lock.Task == ask.Task
}

// finish takes the answer of one proposed waiter.
func (q *waitlist) finish(w *waiter, res command.Result, err error) {
	if w.link != nil {
		if token, has := w.link.holds(w.body, err); has {
			res, err = command.Result{Token: token}, nil
		}
	}
	again := fault.Is(err, fault.Locked) && !q.expired(w)
	q.mu.Lock()
	w.asked = false
	present := q.waiting[w.id] == w
	if again {
		w.held = err
	} else if present {
		q.remove(w)
	}
	q.mu.Unlock()
	if present && !again {
		if fault.Is(err, fault.Locked) {
			err = q.counted(err)
		}
		w.reply(res, err)
	}
	if again && q.d.cfg.Replica.View().Index() <= res.Index {
		q.again(w) // nothing has happened since the refusal
		return
	}
	q.look(w.node) // the next in line, or the same again if the lock fell free meanwhile
}

func (q *waitlist) expired(w *waiter) bool {
	now := q.d.cfg.Clock.Boottime()
	q.mu.Lock()
	defer q.mu.Unlock()
	head, ok := q.line.Next(string(w.node))
	return ok && head.ID == w.id && head.Deadline != 0 && head.Deadline <= now
}

// refusal is what a command would be told that finds others waiting.
func (q *waitlist) refusal(id node.ID) error {
	d := &fault.LockDetail{Node: string(id)}
	if n, ok := q.d.cfg.Replica.View().Node(id); ok && n.Lock.Held() {
		d.Holder, d.Session, d.Task, d.Purpose = n.Lock.Holder, n.Lock.Session, n.Lock.Task, n.Lock.Purpose
		d.Token, d.SinceUnixNano = uint64(n.Lock.Token), n.Lock.Since.UnixNano()
		return fault.New(fault.Locked, "acquire lock", "node %s is locked by %s: %s", id, d.Holder, d.Purpose).WithDetail(d)
	}
	return fault.New(fault.Locked, "acquire lock", "others wait for node %s", id).WithDetail(d)
}

// counted adds the length of the queue to a refusal.
func (q *waitlist) counted(err error) error {
	d := lockDetail(err)
	if d == nil {
		return err
	}
	c := *d
	c.Queued = uint32(q.len(node.ID(d.Node)))
	e := fault.Wrap("", err).(*fault.Error)
	return e.WithDetail(&c)
}

func lockDetail(err error) *fault.LockDetail {
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Locked {
		return nil
	}
	d, _ := e.Detail.(*fault.LockDetail)
	return d
}
