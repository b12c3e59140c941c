package state

import (
	"cmp"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
)

// data is the state proper: tables, and the indexes and counts that follow from them. The applier's data is
// live; a View's is frozen. Both are read by the same methods.
type data struct {
	root root

	nodes       table[node.ID, node.Node]
	ports       table[string, node.Port]
	flows       table[flow.ID, flow.Flow] // the newest of each node
	inventories table[node.ID, Inventory]
	bmcs        table[node.ID, BMCSessions]
	sessions    table[string, Session] // agents'
	agents      table[string, Agent]
	rings       table[pair, Ring]
	clients     table[string, Client]
	answers     table[answerKey, Answer]
	joinTokens  table[string, JoinToken]
	roster      table[[32]byte, Certificate] // by key
	members     table[string, command.Member]
	events      table[Position, event]
	alarms      table[uint64, Alarm]

	nodeNames   tree[pair]     // name, id
	nodesOf     tree[pair]     // owner ("" too), id
	handovers   tree[pair]     // previous owner, id
	held        tree[node.ID]  // nodes whose lock is held
	ringNodes   tree[count]    // nodes per group × driver × owner ("" too)
	ringTotals  tree[count]    // nodes per group × driver
	portMACs    tree[pair]     // address, id
	portsOf     tree[pair]     // node, id
	openFlows   tree[flow.ID]  //
	queuedFlows tree[queued]   // waiting for a concurrency limit, oldest first
	deadlines   tree[deadline] // in order

	endings      tree[ending]   // of the roster
	endedClients tree[deadline] // those of ended client sessions: the first was not used for the longest time
}

// pair is an entry of an index from one text to another, ordered by both.
type pair struct{ key, id string }

func (a pair) less(b pair) bool { return a.key < b.key || a.key == b.key && a.id < b.id }

// count is how many nodes of a ring an agent owns.
type count struct {
	group, driver, agent string
	n                    int
}

func (a count) less(b count) bool {
	return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.driver, b.driver), cmp.Compare(a.agent, b.agent)) < 0
}

// queued is a flow that waits for its concurrency limit.
type queued struct {
	class limitClass
	id    flow.ID
}

func (a queued) less(b queued) bool { return a.class < b.class || a.class == b.class && a.id < b.id }

// deadlineKind says what is over when a deadline passes.
type deadlineKind uint8

const (
	attemptDeadline   deadlineKind = iota + 1 // a Timeout is due
	sessionDeadline                           // a Tick ends the session
	clientDeadline                            // a Tick ends, later forgets, the client session
	joinTokenDeadline                         // a Tick drops the token
)

// deadline orders everything that elapsed time ends.
type deadline struct {
	at   time.Duration
	kind deadlineKind
	flow flow.ID // of an attempt
	id   string  // of a session, client session or join token
}

func (a deadline) less(b deadline) bool {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind), cmp.Compare(a.flow, b.flow), cmp.Compare(a.id, b.id)) < 0
}

func newData() data {
	return data{
		nodes:       newNodeTable(),
		ports:       newTable(func(p *node.Port) string { return p.ID }, hashPort, indexPort),
		flows:       newFlowTable(),
		inventories: newTable(func(i *Inventory) node.ID { return i.Node }, hashInventory, nil),
		bmcs:        newTable(func(b *BMCSessions) node.ID { return b.Node }, hashBMCSessions, nil),
		sessions:    newTable(func(s *Session) string { return s.ID }, hashSession, indexSession),
		agents:      newTable(func(a *Agent) string { return a.Name }, hashAgent, nil),
		rings:       newTableFunc(pair.less, func(r *Ring) pair { return pair{r.Group, r.Driver} }, hashRing, nil),
		clients:     newTable(func(c *Client) string { return c.ID }, hashClient, indexClient),
		answers:     newTableFunc(answerKey.less, func(a *Answer) answerKey { return answerKey{a.Client, a.Seq} }, hashAnswer, nil),
		joinTokens:  newTable(func(t *JoinToken) string { return t.ID }, hashJoinToken, indexJoinToken),
		roster:      newTableFunc(keyLess, func(c *Certificate) [32]byte { return c.Key }, hashCertificate, indexCertificate),
		members:     newTable(func(m *command.Member) string { return m.ID }, hashMember, nil),
		events:      newTableFunc(Position.Less, func(e *event) Position { return Position{e.Index, e.Ordinal} }, hashEvent, nil),
		alarms:      newTable(func(a *Alarm) uint64 { return a.ID }, hashAlarm, nil),
		nodeNames:   newTree(pair.less),
		nodesOf:     newTree(pair.less),
		handovers:   newTree(pair.less),
		held:        newTree(func(a, b node.ID) bool { return a < b }),
		ringNodes:   newTree(count.less),
		ringTotals:  newTree(count.less),
		portMACs:    newTree(pair.less),
		portsOf:     newTree(pair.less),
		openFlows:   newTree(func(a, b flow.ID) bool { return a < b }),
		queuedFlows: newTree(queued.less),
		deadlines:   newTree(deadline.less),

		endings:      newTree(ending.less),
		endedClients: newTree(deadline.less),
	}
}

// answerKey names a stored answer.
type answerKey struct {
	client string
	seq    uint64
}

func (a answerKey) less(b answerKey) bool {
	return a.client < b.client || a.client == b.client && a.seq < b.seq
}

// freeze is a copy that never changes. It costs one small copy per tree that changed since the last freeze.
func (d *data) freeze() data {
	return data{
		root:  d.root,
		nodes: d.nodes.freeze(), ports: d.ports.freeze(), flows: d.flows.freeze(), inventories: d.inventories.freeze(), bmcs: d.bmcs.freeze(),
		sessions: d.sessions.freeze(), agents: d.agents.freeze(), rings: d.rings.freeze(), clients: d.clients.freeze(),
		answers: d.answers.freeze(), joinTokens: d.joinTokens.freeze(), roster: d.roster.freeze(), members: d.members.freeze(),
		events: d.events.freeze(), alarms: d.alarms.freeze(),
		nodeNames: d.nodeNames.freeze(), nodesOf: d.nodesOf.freeze(), handovers: d.handovers.freeze(), held: d.held.freeze(),
		ringNodes: d.ringNodes.freeze(), ringTotals: d.ringTotals.freeze(), portMACs: d.portMACs.freeze(), portsOf: d.portsOf.freeze(),
		openFlows: d.openFlows.freeze(), queuedFlows: d.queuedFlows.freeze(), deadlines: d.deadlines.freeze(),
		endings: d.endings.freeze(), endedClients: d.endedClients.freeze(),
	}
}

// move keeps an index: the old entry goes when it was there and differs, the new one comes.
func move[T comparable](t *tree[T], old T, had bool, new T, has bool) {
	if had && has && old == new {
		return
	}
	if had {
		t.delete(old)
	}
	if has {
		t.set(new)
	}
}

// add changes a count, which is dropped at zero.
func add(t *tree[count], c count, by int) {
	c.n = 0
	if old, ok := t.get(c); ok {
		c.n = old.n
	}
	if c.n += by; c.n == 0 {
		t.delete(c)
	} else {
		t.set(c)
	}
}

func indexNode(d *data, old, new *node.Node) {
	var a, b node.Node
	had, has := old != nil, new != nil
	if had {
		a = *old
	}
	if has {
		b = *new
	}
	move(&d.nodeNames, pair{a.Name, string(a.ID)}, had && a.Name != "", pair{b.Name, string(b.ID)}, has && b.Name != "")
	move(&d.nodesOf, pair{a.Owner, string(a.ID)}, had, pair{b.Owner, string(b.ID)}, has)
	move(&d.handovers, pair{a.PrevOwner, string(a.ID)}, had && a.PrevOwner != "", pair{b.PrevOwner, string(b.ID)}, has && b.PrevOwner != "")
	move(&d.held, a.ID, had && a.Lock.Held(), b.ID, has && b.Lock.Held())
	if had && has && a.Group == b.Group && a.Driver == b.Driver && a.Owner == b.Owner {
		return
	}
	if had {
		add(&d.ringNodes, count{group: a.Group, driver: a.Driver, agent: a.Owner}, -1)
		add(&d.ringTotals, count{group: a.Group, driver: a.Driver}, -1)
	}
	if has {
		add(&d.ringNodes, count{group: b.Group, driver: b.Driver, agent: b.Owner}, 1)
		add(&d.ringTotals, count{group: b.Group, driver: b.Driver}, 1)
	}
}

func indexPort(d *data, old, new *node.Port) {
	var a, b node.Port
	if old != nil {
		a = *old
	}
	if new != nil {
		b = *new
	}
	move(&d.portMACs, pair{a.Address, a.ID}, old != nil, pair{b.Address, b.ID}, new != nil)
	move(&d.portsOf, pair{string(a.Node), a.ID}, old != nil, pair{string(b.Node), b.ID}, new != nil)
}

func indexFlow(d *data, old, new *flow.Flow) {
	oldOpen, newOpen := old != nil && old.Status == flow.Running, new != nil && new.Status == flow.Running
	var oldID, newID flow.ID
	var oldQueue, newQueue queued
	var oldDeadline, newDeadline deadline
	var oldQueued, newQueued, oldTimed, newTimed bool
	if old != nil {
		oldID = old.ID
		oldQueue, oldQueued = queueOf(old)
		oldDeadline, oldTimed = attemptDeadlineOf(old)
	}
	if new != nil {
		newID = new.ID
		newQueue, newQueued = queueOf(new)
		newDeadline, newTimed = attemptDeadlineOf(new)
	}
	move(&d.openFlows, oldID, oldOpen, newID, newOpen)
	move(&d.queuedFlows, oldQueue, oldQueued, newQueue, newQueued)
	move(&d.deadlines, oldDeadline, oldTimed, newDeadline, newTimed)
}

func attemptDeadlineOf(f *flow.Flow) (deadline, bool) {
	if f.Status != flow.Running || f.Cur >= len(f.Steps) {
		return deadline{}, false
	}
	a := f.Steps[f.Cur].Attempt
	return deadline{at: a.Deadline, kind: attemptDeadline, flow: f.ID}, a.Open && a.Deadline > 0
}

func indexSession(d *data, old, new *Session) {
	var a, b deadline
	if old != nil {
		a = deadline{at: old.Deadline, kind: sessionDeadline, id: old.ID}
	}
	if new != nil {
		b = deadline{at: new.Deadline, kind: sessionDeadline, id: new.ID}
	}
	move(&d.deadlines, a, old != nil, b, new != nil)
}

func indexClient(d *data, old, new *Client) {
	at := func(c *Client) deadline {
		if c.Ended {
			return deadline{at: c.UsedAt + ClientForget, kind: clientDeadline, id: c.ID}
		}
		return deadline{at: c.UsedAt + ClientIdle, kind: clientDeadline, id: c.ID}
	}
	var a, b deadline
	if old != nil {
		a = at(old)
	}
	if new != nil {
		b = at(new)
	}
	move(&d.deadlines, a, old != nil, b, new != nil)
	move(&d.endedClients, a, old != nil && old.Ended, b, new != nil && new.Ended)
}

func indexJoinToken(d *data, old, new *JoinToken) {
	var a, b deadline
	if old != nil {
		a = deadline{at: old.Expires, kind: joinTokenDeadline, id: old.ID}
	}
	if new != nil {
		b = deadline{at: new.Expires, kind: joinTokenDeadline, id: new.ID}
	}
	move(&d.deadlines, a, old != nil, b, new != nil)
}
