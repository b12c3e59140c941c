package dispatch

import (
	"github.com/cespare/xxhash/v2"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/plan"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// told is what one stream's agent has been told, and what is still to be looked at. It belongs to the planner.
type told struct {
	nodes   map[node.ID]*toldNode
	todo    []node.ID // of a full pass
	dirty   map[node.ID]struct{}
	backlog []node.ID // orders that wait for a free worker, in order
	credit  int       // free workers less the orders sent since the agent said so
	synced  bool
	group   *farrierv1.GroupInfo
}

// toldNode is what the agent knows of one node.
type toldNode struct {
	assigned bool
	print    uint64 // of the assignment
	token    lock.Token
	epoch    uint64
	gone     uint64   // epoch of the handover it was told of
	order    orderKey // the newest order sent, zero: none
	open     bool     // its attempt has not ended, as far as we know
	worker   bool     // it takes a worker of the agent's
	over     orderKey // the newest attempt whose outcome the agent reported
	waits    bool     // in the backlog
}

// orderKey names an attempt.
type orderKey struct {
	flow    flow.ID
	step    int
	attempt uint32
	token   lock.Token
}

func keyOf(r *farrierv1.OrderRef) orderKey {
	return orderKey{flow.ID(r.GetFlow()), int(r.GetStep()), r.GetAttempt(), lock.Token(r.GetToken())}
}

// same tells whether both are of one attempt, whatever the token.
func (k orderKey) same(o orderKey) bool {
	return k.flow == o.flow && k.step == o.step && k.attempt == o.attempt
}

func (k orderKey) ref(id node.ID) *farrierv1.OrderRef {
	return &farrierv1.OrderRef{Node: string(id), Flow: uint64(k.flow), Step: uint32(k.step), Attempt: k.attempt, Token: uint64(k.token)}
}

func newTold(free uint32) told {
	return told{nodes: map[node.ID]*toldNode{}, dirty: map[node.ID]struct{}{}, credit: int(free)}
}

// all asks for a full pass over the agent's nodes, and those it has to let go, and those it was told of.
func (t *told) all(v *state.View, agent string) {
	t.todo = t.todo[:0]
	add := func(n *node.Node) bool {
		t.todo = append(t.todo, n.ID)
		return true
	}
	v.NodesOf(agent, add)
	v.PendingHandovers(agent, add)
	for id := range t.nodes {
		t.dirty[id] = struct{}{}
	}
}

// ended notes that the agent reported the end of an attempt: it is not cancelled, and its worker is free.
func (t *told) ended(id node.ID, k orderKey) {
	n := t.nodes[id]
	if n == nil {
		n = &toldNode{} // reported before the node was assigned on this stream
		t.nodes[id] = n
	}
	n.over = k
	if n.open && n.order.same(k) {
		t.close(n)
	}
}

func (t *told) close(n *toldNode) {
	n.open = false
	if n.worker {
		n.worker = false
		t.credit++
	}
}

// advance tells l what is new, as far as its outbox has room.
func (p *planner) advance(v *state.View, l *link) {
	t := &l.told
	for len(t.todo) > 0 && l.out.Roomy() {
		id := t.todo[0]
		t.todo = t.todo[1:]
		delete(t.dirty, id)
		p.tell(v, l, id)
	}
	if len(t.todo) == 0 && !t.synced {
		t.synced = true
		l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Synced{Synced: &farrierv1.Synced{}}})
	}
	for id := range t.dirty {
		if !l.out.Roomy() {
			return
		}
		delete(t.dirty, id)
		p.tell(v, l, id)
	}
	for len(t.backlog) > 0 && t.credit > 0 && l.out.Roomy() {
		id := t.backlog[0]
		t.backlog = t.backlog[1:]
		if n := t.nodes[id]; n != nil && n.waits {
			n.waits = false
			p.tell(v, l, id)
		}
	}
}

// tell brings one agent up to date with one node.
func (p *planner) tell(v *state.View, l *link, id node.ID) {
	a, ok := plan.Assign(v, id)
	if !ok || a.Agent != l.agent {
		p.untell(v, l, id)
		return
	}
	n := l.told.nodes[id]
	if n == nil {
		n = &toldNode{}
		l.told.nodes[id] = n
	}
	var w plan.Work
	due := false
	if a.Node.FlowOpen { // most nodes rest
		w, due = plan.Order(v, id)
	}
	key := orderKey{w.Flow, w.Step, w.Attempt, w.Token}
	if n.open && (!due || !key.same(n.order)) {
		p.cancel(l, id, n, "the attempt is closed")
	}
	print := fingerprint(&a)
	// A token that the agent was granted comes to it by the reply or the order; only others' are news.
	news := a.Token > n.token && a.Node.Lock.Held() && a.Node.Lock.Session != l.session
	if due && w.Token < a.Token { // somebody had the lock while the ramdisk works: its order stays good
		a.Token, news = w.Token, false
	}
	if !n.assigned || print != n.print || news {
		l.out.Put(p.d.assignMessage(&a))
		n.assigned, n.print, n.token, n.epoch, n.gone = true, print, a.Token, a.Epoch, 0
	}
	if !due {
		if at, later := notBefore(v, a.Node); later {
			p.later[id] = at
		}
		return
	}
	p.order(l, n, &w, key)
}

// order sends w unless the agent has it already, or has done it, or has no worker for it.
func (p *planner) order(l *link, n *toldNode, w *plan.Work, key orderKey) {
	if n.open && n.order == key || n.over.same(key) {
		return
	}
	worker := w.Executor != step.Ramdisk
	if worker && !n.open && l.told.credit <= 0 {
		if !n.waits {
			n.waits = true
			l.told.backlog = append(l.told.backlog, w.Node)
		}
		return
	}
	if worker && !n.open {
		l.told.credit--
	}
	n.order, n.open, n.worker = key, true, worker
	n.token = max(n.token, key.token)
	l.out.Put(p.d.orderMessage(w, key))
}

func (p *planner) cancel(l *link, id node.ID, n *toldNode, why string) {
	l.told.close(n)
	l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Cancel{
		Cancel: &farrierv1.Cancel{Ref: n.order.ref(id), Reason: why}}})
}

// untell takes a node from an agent that does not own it, or not yet.
func (p *planner) untell(v *state.View, l *link, id node.ID) {
	n, exists := v.Node(id)
	k := l.told.nodes[id]
	if k != nil && k.open {
		p.cancel(l, id, k, "the node is not this agent's any more")
	}
	switch {
	case exists && n.PrevOwner == l.agent:
		if k == nil {
			k = &toldNode{}
			l.told.nodes[id] = k
		}
		if k.gone != n.Epoch {
			k.assigned, k.gone = false, n.Epoch
			l.out.Put(unassign(id, n.Epoch, "the node goes to agent "+n.Owner))
		}
	case exists && n.Owner == l.agent: // the owner before has not let go yet
	case k != nil && k.assigned:
		delete(l.told.nodes, id)
		l.out.Put(unassign(id, k.epoch, "the node was deleted or given away"))
	default:
		delete(l.told.nodes, id)
	}
}

func unassign(id node.ID, epoch uint64, why string) *farrierv1.CoordinatorMessage {
	return &farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Unassign{
		Unassign: &farrierv1.Unassign{Node: string(id), Epoch: epoch, Reason: why}}}
}

// fingerprint is equal for assignments that tell an agent the same, tokens aside.
func fingerprint(a *plan.Assignment) uint64 {
	h := xxhash.New()
	text := func(parts ...string) {
		for _, s := range parts {
			h.WriteString(s)
			h.Write([]byte{0xff})
		}
	}
	n := a.Node
	text(n.Name, n.Driver, n.Provision.String(), n.Power.String(), n.PowerWatch().String())
	number(h, a.Epoch, mapPrint(n.DriverInfo))
	var boxes uint64
	for k, s := range n.Secrets {
		boxes += xxhash.Sum64String(k) ^ xxhash.Sum64(s.Box)*31
	}
	number(h, boxes)
	for _, port := range a.Ports {
		text(port.Address, port.IP)
		if port.PXEEnabled {
			text("pxe")
		}
	}
	if a.Boot != nil {
		text("boot", a.Boot.ID, a.Boot.KeyHash)
	}
	text(a.BMCSessions...)
	return h.Sum64()
}

// mapPrint does not depend on the order of the map.
func mapPrint(m map[string]string) (sum uint64) {
	for k, v := range m {
		sum += xxhash.Sum64String(k) ^ xxhash.Sum64String(v)*31
	}
	return sum
}

func number(h *xxhash.Digest, numbers ...uint64) {
	for _, x := range numbers {
		var b [8]byte
		for i := range b {
			b[i] = byte(x >> (8 * i))
		}
		h.Write(b[:])
	}
}
