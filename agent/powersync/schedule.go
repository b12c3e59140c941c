package powersync

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/task"
)

// Failures is how many readings in a row fail before it is said: Ironic's power_state_sync_max_retries.
const Failures = 3

// Seen is what the coordinators do not know of a node's power.
type Seen struct {
	Node  string
	Epoch uint64 // of the assignment
	Power bmc.PowerState
	Error string // why it could not be read; Power is unknown then
}

// schedule is when each node is looked at, and how often in a row that failed. Time is boottime.
type schedule struct {
	every, recovery time.Duration
	nodes           map[string]*entry
	queue           queue // of those that nobody looks at just now
}

type entry struct {
	node     string
	epoch    uint64
	watch    task.Watch
	known    bmc.PowerState // to the coordinators
	due      time.Duration
	index    int // in the queue, -1: it is being looked at
	failures int // in a row
}

func newSchedule(every, recovery time.Duration) schedule {
	return schedule{every: every, recovery: recovery, nodes: map[string]*entry{}}
}

// assigned takes in what the coordinators say of a node. A node under another watch or epoch begins anew.
func (s *schedule) assigned(now time.Duration, n *task.Node) {
	known := bmc.ParsePower(n.PowerState)
	e := s.nodes[n.ID]
	if e != nil && e.watch == n.Watch && e.epoch == n.Epoch {
		e.known = known
		return
	}
	s.forgotten(n.ID)
	if n.Watch == task.WatchNone {
		return
	}
	e = &entry{node: n.ID, epoch: n.Epoch, watch: n.Watch, known: known}
	s.nodes[n.ID] = e
	s.push(e, s.slot(now, e))
}

func (s *schedule) forgotten(node string) {
	e := s.nodes[node]
	if e == nil {
		return
	}
	delete(s.nodes, node)
	if e.index >= 0 {
		heap.Remove(&s.queue, e.index)
	}
}

// next is when the next node is due.
func (s *schedule) next() (at time.Duration, any bool) {
	if len(s.queue) == 0 {
		return 0, false
	}
	return s.queue[0].due, true
}

// take is a node that is due, to be looked at; done ends that.
func (s *schedule) take(now time.Duration) (*entry, bool) {
	if len(s.queue) == 0 || s.queue[0].due > now {
		return nil, false
	}
	return heap.Pop(&s.queue).(*entry), true
}

// missed puts a node off whose BMC somebody else had.
func (s *schedule) missed(now time.Duration, e *entry) {
	if s.nodes[e.node] == e {
		s.push(e, now+s.every/12)
	}
}

// done takes in what a look at a node came to, and tells whether it is to be said. What was seen under an assignment that is over
// counts for nothing.
func (s *schedule) done(now time.Duration, e *entry, power bmc.PowerState, err error) (seen Seen, say bool) {
	if s.nodes[e.node] != e {
		return Seen{}, false
	}
	s.push(e, s.slot(now, e))
	seen = Seen{Node: e.node, Epoch: e.epoch}
	if err != nil {
		e.failures++
		seen.Error = fmt.Sprintf("%d readings in a row failed, the last with: %v", e.failures, err)
		return seen, e.watch == task.WatchPower && e.failures >= Failures
	}
	e.failures = 0
	seen.Power = power
	return seen, e.watch == task.WatchRecovery || power != e.known
}

// slot is the node's next moment after now: the same in each interval, and another for each node.
func (s *schedule) slot(now time.Duration, e *entry) time.Duration {
	period := s.every
	if e.watch == task.WatchRecovery {
		period = s.recovery
	}
	h := fnv.New64a()
	h.Write([]byte(e.node))
	offset := time.Duration(h.Sum64() % uint64(period))
	at := now - now%period + offset
	if at <= now {
		at += period
	}
	return at
}

func (s *schedule) push(e *entry, due time.Duration) {
	e.due = due
	heap.Push(&s.queue, e)
}

// queue is a heap of entries by when they are due.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last], *q = nil, (*q)[:last]
	e.index = -1
	return e
}
