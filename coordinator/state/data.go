package state

import (
	"cmp"
	"time"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/table"
)

// data is the state proper: tables, and the indexes and counts that follow from them. The applier's data is
// live; a View's is frozen. Both are read by the same methods.
type data struct {
	root root

	nodes       table.Table[node.ID, node.Node]
	ports       table.Table[string, node.Port]
	flows       table.Table[flow.ID, flow.Flow] // the newest of each node
	inventories table.Table[node.ID, Inventory]
	bmcs        table.Table[node.ID, BMCSessions]
	sessions    table.Table[string, Session] // agents'
	agents      table.Table[string, Agent]
	rings       table.Table[pair, Ring]
	clients     table.Table[string, Client]
	answers     table.Table[answerKey, Answer]
	joinTokens  table.Table[string, JoinToken]
	roster      table.Table[[32]byte, Certificate] // by key
	members     table.Table[string, command.Member]
	events      table.Table[Position, event]
	alarms      table.Table[uint64, Alarm]

	nodeNames   table.Tree[pair]     // name, id
	nodesOf     table.Tree[pair]     // owner ("" too), id
	handovers   table.Tree[pair]     // previous owner, id
	held        table.Tree[node.ID]  // nodes whose lock is held
	ringNodes   table.Tree[count]    // nodes per group × driver × owner ("" too)
	ringTotals  table.Tree[count]    // nodes per group × driver
	portMACs    table.Tree[pair]     // address, id
	portsOf     table.Tree[pair]     // node, id
	openFlows   table.Tree[flow.ID]  //
	queuedFlows table.Tree[queued]   // waiting for a concurrency limit, oldest first
	deadlines   table.Tree[deadline] // in order

	endings      table.Tree[ending]   // of the roster
	endedClients table.Tree[deadline] // those of ended client sessions: the first was not used for the longest time
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

func newTable[K cmp.Ordered, R any](key func(*R) K, hash func(*canon.Writer, *R), index func(old, new *R)) table.Table[K, R] {
	return newTableFunc(cmp.Less[K], key, hash, index)
}

func newTableFunc[K, R any](less func(a, b K) bool, key func(*R) K, hash func(*canon.Writer, *R), index func(old, new *R)) table.Table[K, R] {
	return table.NewFunc(less, table.Spec[K, R]{Key: key, Hash: table.Whole(hash), Index: index})
}

// init makes the tables. They keep d's indexes, so that d must stay where it is.
func (d *data) init() {
	*d = data{
		nodes:       d.newNodeTable(),
		ports:       newTable(func(p *node.Port) string { return p.ID }, hashPort, d.indexPort),
		flows:       d.newFlowTable(),
		inventories: newTable(func(i *Inventory) node.ID { return i.Node }, hashInventory, nil),
		bmcs:        newTable(func(b *BMCSessions) node.ID { return b.Node }, hashBMCSessions, nil),
		sessions:    newTable(func(s *Session) string { return s.ID }, hashSession, d.indexSession),
		agents:      newTable(func(a *Agent) string { return a.Name }, hashAgent, nil),
		rings:       newTableFunc(pair.less, func(r *Ring) pair { return pair{r.Group, r.Driver} }, hashRing, nil),
		clients:     newTable(func(c *Client) string { return c.ID }, hashClient, d.indexClient),
		answers:     newTableFunc(answerKey.less, func(a *Answer) answerKey { return answerKey{a.Client, a.Seq} }, hashAnswer, nil),
		joinTokens:  newTable(func(t *JoinToken) string { return t.ID }, hashJoinToken, d.indexJoinToken),
		roster:      newTableFunc(keyLess, func(c *Certificate) [32]byte { return c.Key }, hashCertificate, d.indexCertificate),
		members:     newTable(func(m *command.Member) string { return m.ID }, hashMember, nil),
		events:      newTableFunc(Position.Less, func(e *event) Position { return Position{e.Index, e.Ordinal} }, hashEvent, nil),
		alarms:      newTable(func(a *Alarm) uint64 { return a.ID }, hashAlarm, nil),
		nodeNames:   table.NewTree(pair.less),
		nodesOf:     table.NewTree(pair.less),
		handovers:   table.NewTree(pair.less),
		held:        table.NewTree(func(a, b node.ID) bool { return a < b }),
		ringNodes:   table.NewTree(count.less),
		ringTotals:  table.NewTree(count.less),
		portMACs:    table.NewTree(pair.less),
		portsOf:     table.NewTree(pair.less),
		openFlows:   table.NewTree(func(a, b flow.ID) bool { return a < b }),
		queuedFlows: table.NewTree(queued.less),
		deadlines:   table.NewTree(deadline.less),

		endings:      table.NewTree(ending.less),
		endedClients: table.NewTree(deadline.less),
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
		nodes: d.nodes.Freeze(), ports: d.ports.Freeze(), flows: d.flows.Freeze(), inventories: d.inventories.Freeze(), bmcs: d.bmcs.Freeze(),
		sessions: d.sessions.Freeze(), agents: d.agents.Freeze(), rings: d.rings.Freeze(), clients: d.clients.Freeze(),
		answers: d.answers.Freeze(), joinTokens: d.joinTokens.Freeze(), roster: d.roster.Freeze(), members: d.members.Freeze(),
		events: d.events.Freeze(), alarms: d.alarms.Freeze(),
		nodeNames: d.nodeNames.Freeze(), nodesOf: d.nodesOf.Freeze(), handovers: d.handovers.Freeze(), held: d.held.Freeze(),
		ringNodes: d.ringNodes.Freeze(), ringTotals: d.ringTotals.Freeze(), portMACs: d.portMACs.Freeze(), portsOf: d.portsOf.Freeze(),
		openFlows: d.openFlows.Freeze(), queuedFlows: d.queuedFlows.Freeze(), deadlines: d.deadlines.Freeze(),
		endings: d.endings.Freeze(), endedClients: d.endedClients.Freeze(),
	}
}

// add changes a count, which is dropped at zero.
func add(t *table.Tree[count], c count, by int) {
	c.n = 0
	if old, ok := t.Get(c); ok {
		c.n = old.n
	}
	if c.n += by; c.n == 0 {
		t.Delete(c)
	} else {
		t.Set(c)
	}
}

func (d *data) indexNode(old, new *node.Node) {
	var a, b node.Node
	had, has := old != nil, new != nil
	if had {
		a = *old
	}
	if has {
		b = *new
	}
	table.Move(&d.nodeNames, pair{a.Name, string(a.ID)}, had && a.Name != "", pair{b.Name, string(b.ID)}, has && b.Name != "")
	table.Move(&d.nodesOf, pair{a.Owner, string(a.ID)}, had, pair{b.Owner, string(b.ID)}, has)
	table.Move(&d.handovers, pair{a.PrevOwner, string(a.ID)}, had && a.PrevOwner != "", pair{b.PrevOwner, string(b.ID)}, has && b.PrevOwner != "")
	table.Move(&d.held, a.ID, had && a.Lock.Held(), b.ID, has && b.Lock.Held())
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

func (d *data) indexPort(old, new *node.Port) {
	var a, b node.Port
	if old != nil {
		a = *old
	}
	if new != nil {
		b = *new
	}
	table.Move(&d.portMACs, pair{a.Address, a.ID}, old != nil, pair{b.Address, b.ID}, new != nil)
	table.Move(&d.portsOf, pair{string(a.Node), a.ID}, old != nil, pair{string(b.Node), b.ID}, new != nil)
}

func (d *data) indexFlow(old, new *flow.Flow) {
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
	table.Move(&d.openFlows, oldID, oldOpen, newID, newOpen)
	table.Move(&d.queuedFlows, oldQueue, oldQueued, newQueue, newQueued)
	table.Move(&d.deadlines, oldDeadline, oldTimed, newDeadline, newTimed)
}

func attemptDeadlineOf(f *flow.Flow) (deadline, bool) {
	if f.Status != flow.Running || f.Cur >= len(f.Steps) {
		return deadline{}, false
	}
	a := f.Steps[f.Cur].Attempt
	return deadline{at: a.Deadline, kind: attemptDeadline, flow: f.ID}, a.Open && a.Deadline > 0
}

func (d *data) indexSession(old, new *Session) {
	var a, b deadline
	if old != nil {
		a = deadline{at: old.Deadline, kind: sessionDeadline, id: old.ID}
	}
	if new != nil {
		b = deadline{at: new.Deadline, kind: sessionDeadline, id: new.ID}
	}
	table.Move(&d.deadlines, a, old != nil, b, new != nil)
}

func (d *data) indexClient(old, new *Client) {
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
	table.Move(&d.deadlines, a, old != nil, b, new != nil)
	table.Move(&d.endedClients, a, old != nil && old.Ended, b, new != nil && new.Ended)
}

func (d *data) indexJoinToken(old, new *JoinToken) {
	var a, b deadline
	if old != nil {
		a = deadline{at: old.Expires, kind: joinTokenDeadline, id: old.ID}
	}
	if new != nil {
		b = deadline{at: new.Expires, kind: joinTokenDeadline, id: new.ID}
	}
	table.Move(&d.deadlines, a, old != nil, b, new != nil)
}
