package state

import (
	"cmp"
	"time"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/table"
)

// Tables are the facts, and the indexes that follow from them. A State's are live; a View's are frozen. Both are read by the same
// methods.
type Tables struct {
	Root Root

	Nodes        table.Table[node.ID, node.Node]
	Ports        table.Table[string, node.Port]
	Flows        table.Table[flow.ID, flow.Flow] // the newest of each node
	Inventories  table.Table[node.ID, Inventory]
	BMCs         table.Table[node.ID, BMCSessions]
	Sessions     table.Table[string, Session] // agents'
	Agents       table.Table[string, Agent]
	Rings        table.Table[RingKey, Ring]
	Clients      table.Table[string, Client]
	Answers      table.Table[AnswerKey, Answer]
	JoinTokens   table.Table[string, JoinToken]
	Certificates table.Table[[32]byte, Certificate] // the roster, by key
	Members      table.Table[string, command.Member]
	events       table.Table[Position, event]
	alarms       table.Table[uint64, Alarm]

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
	deadlines   table.Tree[Deadline] // in order

	endings      table.Tree[ending]   // of the roster
	endedClients table.Tree[Deadline] // those of ended client sessions: the first was not used for the longest time

	ringMembers map[RingKey][]ring.Member // what RingMembers found, until an agent changes; only of live tables
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

// RingKey names a ring: the agents of a group that offer a hardware type.
type RingKey struct{ Group, Driver string }

func (a RingKey) less(b RingKey) bool {
	return a.Group < b.Group || a.Group == b.Group && a.Driver < b.Driver
}

// queued is a flow that waits for its concurrency limit.
type queued struct {
	limit flow.Limit
	id    flow.ID
}

func (a queued) less(b queued) bool { return a.limit < b.limit || a.limit == b.limit && a.id < b.id }

func queueOf(f *flow.Flow) (queued, bool) { return queued{f.Kind.Limit(), f.ID}, f.Queued() }

// DeadlineKind says what is over when a deadline passes.
type DeadlineKind uint8

const (
	attemptDeadline   DeadlineKind = iota + 1 // a Timeout is due
	SessionDeadline                           // a Tick ends the session
	ClientDeadline                            // a Tick ends, later forgets, the client session
	JoinTokenDeadline                         // a Tick drops the token
)

// Deadline orders everything that elapsed time ends.
type Deadline struct {
	At   time.Duration
	Kind DeadlineKind
	flow flow.ID // of an attempt
	ID   string  // of a session, client session or join token
}

func (a Deadline) less(b Deadline) bool {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.flow, b.flow), cmp.Compare(a.ID, b.ID)) < 0
}

func newTable[K cmp.Ordered, R any](key func(*R) K, hash func(*canon.Writer, *R), index func(old, new *R)) table.Table[K, R] {
	return newTableFunc(cmp.Less[K], key, hash, index)
}

func newTableFunc[K, R any](less func(a, b K) bool, key func(*R) K, hash func(*canon.Writer, *R), index func(old, new *R)) table.Table[K, R] {
	return table.NewFunc(less, table.Spec[K, R]{Key: key, Hash: table.Whole(hash), Index: index})
}

// init makes the tables. They keep d's indexes, so that d must stay where it is.
func (d *Tables) init() {
	*d = Tables{
		Nodes:        d.newNodeTable(),
		Ports:        newTable(func(p *node.Port) string { return p.ID }, hashPort, d.indexPort),
		Flows:        d.newFlowTable(),
		Inventories:  newTable(func(i *Inventory) node.ID { return i.Node }, hashInventory, nil),
		BMCs:         newTable(func(b *BMCSessions) node.ID { return b.Node }, hashBMCSessions, nil),
		Sessions:     newTable(func(s *Session) string { return s.ID }, hashSession, d.indexSession),
		Agents:       newTable(func(a *Agent) string { return a.Name }, hashAgent, func(_, _ *Agent) { clear(d.ringMembers) }),
		Rings:        newTableFunc(RingKey.less, func(r *Ring) RingKey { return RingKey{r.Group, r.Driver} }, hashRing, nil),
		Clients:      newTable(func(c *Client) string { return c.ID }, hashClient, d.indexClient),
		Answers:      newTableFunc(AnswerKey.less, func(a *Answer) AnswerKey { return AnswerKey{a.Client, a.Seq} }, hashAnswer, nil),
		JoinTokens:   newTable(func(t *JoinToken) string { return t.ID }, hashJoinToken, d.indexJoinToken),
		Certificates: newTableFunc(keyLess, func(c *Certificate) [32]byte { return c.Key }, hashCertificate, d.indexCertificate),
		Members:      newTable(func(m *command.Member) string { return m.ID }, hashMember, nil),
		events:       newTableFunc(Position.Less, func(e *event) Position { return Position{e.Index, e.Ordinal} }, hashEvent, nil),
		alarms:       newTable(func(a *Alarm) uint64 { return a.ID }, hashAlarm, nil),
		nodeNames:    table.NewTree(pair.less),
		nodesOf:      table.NewTree(pair.less),
		handovers:    table.NewTree(pair.less),
		held:         table.NewTree(func(a, b node.ID) bool { return a < b }),
		ringNodes:    table.NewTree(count.less),
		ringTotals:   table.NewTree(count.less),
		portMACs:     table.NewTree(pair.less),
		portsOf:      table.NewTree(pair.less),
		openFlows:    table.NewTree(func(a, b flow.ID) bool { return a < b }),
		queuedFlows:  table.NewTree(queued.less),
		deadlines:    table.NewTree(Deadline.less),

		endings:      table.NewTree(ending.less),
		endedClients: table.NewTree(Deadline.less),

		ringMembers: map[RingKey][]ring.Member{},
	}
}

// AnswerKey names a stored answer.
type AnswerKey struct {
	Client string
	Seq    uint64
}

func (a AnswerKey) less(b AnswerKey) bool {
	return a.Client < b.Client || a.Client == b.Client && a.Seq < b.Seq
}

// freeze is a copy that never changes. It costs one small copy per tree that changed since the last freeze.
func (d *Tables) freeze() Tables {
	return Tables{
		Root:  d.Root,
		Nodes: d.Nodes.Freeze(), Ports: d.Ports.Freeze(), Flows: d.Flows.Freeze(), Inventories: d.Inventories.Freeze(), BMCs: d.BMCs.Freeze(),
		Sessions: d.Sessions.Freeze(), Agents: d.Agents.Freeze(), Rings: d.Rings.Freeze(), Clients: d.Clients.Freeze(),
		Answers: d.Answers.Freeze(), JoinTokens: d.JoinTokens.Freeze(), Certificates: d.Certificates.Freeze(), Members: d.Members.Freeze(),
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

func (d *Tables) indexNode(old, new *node.Node) {
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

func (d *Tables) indexPort(old, new *node.Port) {
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

func (d *Tables) indexFlow(old, new *flow.Flow) {
	oldOpen, newOpen := old != nil && old.Status == flow.Running, new != nil && new.Status == flow.Running
	var oldID, newID flow.ID
	var oldQueue, newQueue queued
	var oldDeadline, newDeadline Deadline
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

func attemptDeadlineOf(f *flow.Flow) (Deadline, bool) {
	if f.Status != flow.Running || f.Cur >= len(f.Steps) {
		return Deadline{}, false
	}
	a := f.Steps[f.Cur].Attempt
	return Deadline{At: a.Deadline, Kind: attemptDeadline, flow: f.ID}, a.Open && a.Deadline > 0
}

func (d *Tables) indexSession(old, new *Session) {
	var a, b Deadline
	if old != nil {
		a = Deadline{At: old.Deadline, Kind: SessionDeadline, ID: old.ID}
	}
	if new != nil {
		b = Deadline{At: new.Deadline, Kind: SessionDeadline, ID: new.ID}
	}
	table.Move(&d.deadlines, a, old != nil, b, new != nil)
}

func (d *Tables) indexClient(old, new *Client) {
	at := func(c *Client) Deadline {
		if c.Ended {
			return Deadline{At: c.UsedAt + ClientForget, Kind: ClientDeadline, ID: c.ID}
		}
		return Deadline{At: c.UsedAt + ClientIdle, Kind: ClientDeadline, ID: c.ID}
	}
	var a, b Deadline
	if old != nil {
		a = at(old)
	}
	if new != nil {
		b = at(new)
	}
	table.Move(&d.deadlines, a, old != nil, b, new != nil)
	table.Move(&d.endedClients, a, old != nil && old.Ended, b, new != nil && new.Ended)
}

func (d *Tables) indexJoinToken(old, new *JoinToken) {
	var a, b Deadline
	if old != nil {
		a = Deadline{At: old.Expires, Kind: JoinTokenDeadline, ID: old.ID}
	}
	if new != nil {
		b = Deadline{At: new.Expires, Kind: JoinTokenDeadline, ID: new.ID}
	}
	table.Move(&d.deadlines, a, old != nil, b, new != nil)
}
