package lock

import (
	"cmp"
	"time"

	"github.com/tidwall/btree"
)

// Bounds of a Queue.
const (
	MaxPerNode = 64
	MaxWaiters = 100_000
)

// Waiter is one caller in a node's queue.
type Waiter struct {
	ID       uint64        // chosen by the caller of Push, unique in the queue
	Node     string        // node.ID
	Deadline time.Duration // on the pusher's clock; 0: patient
}

// Queue keeps, per node, who waits for its lock, in the order they came. It is not safe for concurrent use.
// The zero Queue is not usable: see NewQueue.
type Queue struct {
	nodes   map[string]*line
	waiters map[uint64]*waiter
	timed   *btree.BTreeG[Waiter] // those with a deadline, soonest first
	perNode int
	total   int
}

type waiter struct {
	Waiter
	line       *line
	prev, next *waiter
}

type line struct {
	head, tail *waiter
	n          int
}

// NewQueue makes an empty queue with the bounds MaxPerNode and MaxWaiters.
func NewQueue() *Queue {
	return &Queue{
		nodes: map[string]*line{}, waiters: map[uint64]*waiter{}, perNode: MaxPerNode, total: MaxWaiters,
		timed: btree.NewBTreeGOptions(sooner, btree.Options{NoLocks: true}),
	}
}

func sooner(a, b Waiter) bool {
	return cmp.Or(cmp.Compare(a.Deadline, b.Deadline), cmp.Compare(a.ID, b.ID)) < 0
}

// Push puts w behind all that wait for its node. It is false when a bound is reached or the id is queued
// already: nothing is queued then.
func (q *Queue) Push(w Waiter) bool {
	if _, dup := q.waiters[w.ID]; dup || len(q.waiters) >= q.total {
		return false
	}
	l := q.nodes[w.Node]
	if l == nil {
		l = &line{}
		q.nodes[w.Node] = l
	}
	if l.n >= q.perNode {
		return false
	}
	x := &waiter{Waiter: w, line: l, prev: l.tail}
	if l.tail != nil {
		l.tail.next = x
	} else {
		l.head = x
	}
	l.tail = x
	l.n++
	q.waiters[w.ID] = x
	if w.Deadline != 0 {
		q.timed.Set(w)
	}
	return true
}

// Next is the first in the node's line; it stays there until it is dropped. ok is false for an empty line.
func (q *Queue) Next(node string) (w Waiter, ok bool) {
	if l := q.nodes[node]; l != nil {
		return l.head.Waiter, true
	}
	return Waiter{}, false
}

// Drop takes a waiter out: it was served, its caller left or its deadline passed. It is false for an unknown id.
func (q *Queue) Drop(id uint64) bool {
	x, ok := q.waiters[id]
	if !ok {
		return false
	}
	delete(q.waiters, id)
	q.timed.Delete(x.Waiter)
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		x.line.head = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	} else {
		x.line.tail = x.prev
	}
	if x.line.n--; x.line.n == 0 {
		delete(q.nodes, x.Node)
	}
	return true
}

// Len is how many wait for the node.
func (q *Queue) Len(node string) int {
	if l := q.nodes[node]; l != nil {
		return l.n
	}
	return 0
}

// Total is how many wait for any node.
func (q *Queue) Total() int { return len(q.waiters) }

// Nodes calls fn for each node that has waiters, in no order, until fn returns false. fn must not change q.
func (q *Queue) Nodes(fn func(node string) bool) {
	for n := range q.nodes {
		if !fn(n) {
			return
		}
	}
}

// Expired appends to ids the waiters whose deadline is not after now, soonest first, until ids has max.
func (q *Queue) Expired(now time.Duration, max int, ids []uint64) []uint64 {
	q.timed.Scan(func(w Waiter) bool {
		if w.Deadline > now || len(ids) >= max {
			return false
		}
		ids = append(ids, w.ID)
		return true
	})
	return ids
}
