package state

import (
	"encoding/hex"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/table"
)

// View is the state as it was after one entry. It never changes and is safe for concurrent use. Records that
// it hands out are shared: read them, never write them, maps and slices included.
type View struct{ data data }

// View is the state now, in O(1). Only the goroutine that calls Apply may call it.
func (s *State) View() *View { return &View{data: s.data.freeze()} }

// Index is the log index of the newest applied command, 0 for an empty state.
func (v *View) Index() uint64 { return v.data.root.index }

// Elapsed is replicated time.
func (v *View) Elapsed() time.Duration { return v.data.root.elapsed }

// Position is where the next event will come after: list at a view, then watch from its Position.
func (v *View) Position() Position { return Position{v.data.root.index, ^uint32(0)} }

// Cluster is what is common to all members. Its ID is "" before InitCluster.
func (v *View) Cluster() *Cluster { c := v.data.root.cluster; return &c }

// Settings are the replicated timeouts and limits.
func (v *View) Settings() command.Settings { return v.data.root.settings }

// Node finds a node by id.
func (v *View) Node(id node.ID) (*node.Node, bool) { n := v.data.node(id); return n, n != nil }

// ResolveNode finds a node by id, else by name.
func (v *View) ResolveNode(idOrName string) (*node.Node, bool) {
	if n := v.data.node(node.ID(idOrName)); n != nil {
		return n, true
	}
	n := v.data.nodeNamed(idOrName)
	return n, n != nil
}

// Nodes visits nodes in id order, starting after an id ("" for all), until fn returns false.
func (v *View) Nodes(after node.ID, fn func(*node.Node) bool) {
	v.data.nodes.Ascend(after, func(n *node.Node) bool { return n.ID == after || fn(n) })
}

// NodesOf visits the nodes that an agent owns, in id order. Agent "" has the unowned ones.
func (v *View) NodesOf(agent string, fn func(*node.Node) bool) {
	v.data.visitNodes(&v.data.nodesOf, agent, fn)
}

// Unowned visits nodes that no live agent could take.
func (v *View) Unowned(fn func(*node.Node) bool) { v.data.visitNodes(&v.data.nodesOf, "", fn) }

// PendingHandovers visits the nodes that this agent lost and has not yet acknowledged (PrevOwner).
func (v *View) PendingHandovers(agent string, fn func(*node.Node) bool) {
	v.data.visitNodes(&v.data.handovers, agent, fn)
}

// NodeCount is how many nodes there are.
func (v *View) NodeCount() int { return v.data.nodes.Len() }

// NodesWith is how many nodes an agent owns, in all rings.
func (v *View) NodesWith(agent string) int {
	total := 0
	v.data.ringNodes.Scan(func(c count) bool {
		if c.agent == agent {
			total += c.n
		}
		return true
	})
	return total
}

// Held visits the nodes whose lock is held, in id order.
func (v *View) Held(fn func(*node.Node) bool) {
	v.data.held.Scan(func(id node.ID) bool { return fn(v.data.node(id)) })
}

// Ports are a node's ports in id order.
func (v *View) Ports(id node.ID) []*node.Port { return v.data.nodePorts(id) }

// Port finds a port by id.
func (v *View) Port(id string) (*node.Port, bool) { p := v.data.port(id); return p, p != nil }

// PortByMAC finds a port by its address, lower case with colons.
func (v *View) PortByMAC(mac string) (*node.Port, bool) {
	p := v.data.portByMAC(mac)
	return p, p != nil
}

// AllPorts visits ports in id order, starting after an id ("" for all), until fn returns false.
func (v *View) AllPorts(after string, fn func(*node.Port) bool) {
	v.data.ports.Ascend(after, func(p *node.Port) bool { return p.ID == after || fn(p) })
}

// Flow finds a flow. Only the newest flow of each node is kept.
func (v *View) Flow(id flow.ID) (*flow.Flow, bool) { f := v.data.flow(id); return f, f != nil }

// LastFlow is a node's open flow, or the last one.
func (v *View) LastFlow(id node.ID) (*flow.Flow, bool) {
	n := v.data.node(id)
	if n == nil || n.Flow == 0 {
		return nil, false
	}
	f := v.data.flow(n.Flow)
	return f, f != nil
}

// OpenFlows visits open flows, oldest first.
func (v *View) OpenFlows(fn func(*flow.Flow) bool) {
	v.data.openFlows.Scan(func(id flow.ID) bool { return fn(v.data.flow(id)) })
}

// Session finds a live session: an agent's, or a client's (Client is set).
func (v *View) Session(id string) (*Session, bool) {
	if se := v.data.session(id); se != nil {
		return se, true
	}
	c := v.data.client(id)
	if c == nil || c.Ended {
		return nil, false
	}
	return &Session{ID: c.ID, Actor: c.Actor, Deadline: c.UsedAt + ClientIdle, Client: true}, true
}

// Sessions visits the live sessions of agents in id order.
func (v *View) Sessions(fn func(*Session) bool) { v.data.sessions.Scan(fn) }

// Clients is how many client sessions are known, ended ones included.
func (v *View) Clients() int { return v.data.clients.Len() }

// Answered is the stored answer to the actor's request, if it was done and its answer is kept: a repeat of it changes
// nothing.
func (v *View) Answered(actor string, r command.RequestID) (command.Result, bool) {
	c, a := v.data.client(r.Client), v.data.answers.Find(answerKey{r.Client, r.Seq})
	if c == nil || c.Actor != actor || a == nil || a.Gone || a.Digest != r.Digest {
		return command.Result{}, false
	}
	return a.Result, true
}

// Agent finds a registered agent, live or not.
func (v *View) Agent(name string) (*Agent, bool) {
	a := v.data.agent(name)
	return a, a != nil && !a.Removed
}

// Removed tells whether the agent was removed and has not joined again.
func (v *View) Removed(name string) bool {
	a := v.data.agent(name)
	return a != nil && a.Removed
}

// Agents visits the registered agents by name.
func (v *View) Agents(fn func(*Agent) bool) {
	v.data.agents.Scan(func(a *Agent) bool { return a.Removed || fn(a) })
}

// Members visits the coordinators by id.
func (v *View) Members(fn func(*command.Member) bool) { v.data.members.Scan(fn) }

// Member finds a coordinator.
func (v *View) Member(id string) (*command.Member, bool) {
	m := v.data.members.Find(id)
	return m, m != nil
}

// JoinToken finds an unexpired join token. A used one is kept for a while, for who used it.
func (v *View) JoinToken(id string) (*JoinToken, bool) {
	t := v.data.joinTokens.Find(id)
	return t, t != nil && t.Expires > v.data.root.elapsed
}

// Certificate is the record of a key that the CA has certified, or nil: see Admit.
func (v *View) Certificate(key [32]byte) *Certificate { return v.data.roster.Find(key) }

// Certificates visits the roster.
func (v *View) Certificates(fn func(*Certificate) bool) { v.data.roster.Scan(fn) }

// Roster is a number that differs whenever the roster does.
func (v *View) Roster() uint64 { return v.data.Roster() }

// Alarms visits the newest alarms, oldest first.
func (v *View) Alarms(fn func(*Alarm) bool) { v.data.alarms.Scan(fn) }

// Inventory is what inspection found on a node, as the agent compressed it, and when.
func (v *View) Inventory(id node.ID) ([]byte, time.Time, bool) {
	i := v.data.inventories.Find(id)
	if i == nil {
		return nil, time.Time{}, false
	}
	return i.Data, i.At, true
}

// BMCSessions is the sessions that may be open at a node's BMC, oldest first. It is not to be written.
func (v *View) BMCSessions(id node.ID) []command.BMCSession {
	if b := v.data.bmcs.Find(id); b != nil {
		return b.Sessions
	}
	return nil
}

// RingView is one group × hardware type.
type RingView struct {
	Group, Driver string
	Epoch         uint64         // rises with each membership change
	Members       []ring.Member  // live and not draining, by name
	Load          map[string]int // nodes per agent; "" has the unowned ones
	Nodes         int
}

// Ring is the ring of a group and hardware type; it is empty when there are neither nodes nor agents.
func (v *View) Ring(group, driver string) RingView {
	r := RingView{Group: group, Driver: driver, Members: v.data.ringMembers(group, driver), Load: map[string]int{}}
	if rec := v.data.rings.Find(pair{group, driver}); rec != nil {
		r.Epoch = rec.Epoch
	}
	v.data.ringNodes.Ascend(count{group: group, driver: driver}, func(c count) bool {
		if c.group != group || c.driver != driver {
			return false
		}
		r.Load[c.agent] = c.n
		r.Nodes += c.n
		return true
	})
	return r
}

// Rings visits group × hardware type of all rings that ever had an agent, in order.
func (v *View) Rings(fn func(*Ring) bool) { v.data.rings.Scan(fn) }

// Events are at most max events after a position, in order. floor is the newest position that is gone; when
// compacted is set the position asked for is below it: list at a view, then watch from there.
func (v *View) Events(after Position, max int) (evs []Event, floor Position, compacted bool) {
	floor = v.data.root.evicted
	if after.Less(floor) {
		return nil, floor, true
	}
	v.data.events.Ascend(after, func(e *event) bool {
		if len(evs) == max {
			return false
		}
		if p := (Position{e.Index, e.Ordinal}); after.Less(p) {
			evs = append(evs, fromStored(e))
		}
		return true
	})
	return evs, floor, false
}

// DueAttempt is an attempt whose deadline has passed.
type DueAttempt struct {
	Deadline time.Duration
	Flow     *flow.Flow
}

// Due visits at most max open attempts whose deadline is at or before now, earliest first.
func (v *View) Due(now time.Duration, max int, fn func(DueAttempt) bool) {
	v.data.deadlines.Scan(func(d deadline) bool {
		if d.at > now || max == 0 {
			return false
		}
		if d.kind != attemptDeadline {
			return true
		}
		max--
		return fn(DueAttempt{Deadline: d.at, Flow: v.data.flow(d.flow)})
	})
}

// HasDeadlines tells whether anything waits for elapsed time: if not, ticks may pause.
func (v *View) HasDeadlines() bool { return v.data.deadlines.Len() > 0 }

// NextDeadline is the earliest deadline of any kind.
func (v *View) NextDeadline() (time.Duration, bool) {
	d, ok := v.data.deadlines.Min()
	return d.at, ok
}

// Queued is how many flows wait for the limit on concurrent deploys, and on cleans.
func (v *View) Queued() (deploys, cleans int) {
	v.data.queuedFlows.Scan(func(q queued) bool {
		if q.class == limitDeploy {
			deploys++
		} else {
			cleans++
		}
		return true
	})
	return deploys, cleans
}

// Hash compares replicas: equal logs have equal hashes.
func (v *View) Hash() [16]byte { return v.data.hash() }

// HashText is Hash in hex.
func (v *View) HashText() string { h := v.data.hash(); return hex.EncodeToString(h[:]) }

func (d *data) node(id node.ID) *node.Node { return d.nodes.Find(id) }
func (d *data) port(id string) *node.Port  { return d.ports.Find(id) }
func (d *data) flow(id flow.ID) *flow.Flow { return d.flows.Find(id) }
func (d *data) session(id string) *Session { return d.sessions.Find(id) }
func (d *data) client(id string) *Client   { return d.clients.Find(id) }
func (d *data) agent(name string) *Agent   { return d.agents.Find(name) }
func (d *data) nodeNamed(name string) *node.Node {
	id, ok := first(&d.nodeNames, name)
	if !ok || name == "" {
		return nil
	}
	return d.node(node.ID(id))
}

func (d *data) portByMAC(mac string) *node.Port {
	id, ok := first(&d.portMACs, mac)
	if !ok {
		return nil
	}
	return d.port(id)
}

// first is the first id under a key.
func first(t *table.Tree[pair], key string) (id string, ok bool) {
	t.Ascend(pair{key: key}, func(p pair) bool {
		id, ok = p.id, p.key == key
		return false
	})
	return id, ok
}

func (d *data) nodePorts(id node.ID) []*node.Port {
	var ports []*node.Port
	d.portsOf.Ascend(pair{key: string(id)}, func(p pair) bool {
		if p.key != string(id) {
			return false
		}
		ports = append(ports, d.port(p.id))
		return true
	})
	return ports
}

func (d *data) visitNodes(t *table.Tree[pair], key string, fn func(*node.Node) bool) {
	t.Ascend(pair{key: key}, func(p pair) bool { return p.key == key && fn(d.node(node.ID(p.id))) })
}

// ringMembers are the agents that may be given nodes of a ring.
func (d *data) ringMembers(group, driver string) []ring.Member {
	var members []ring.Member
	d.agents.Scan(func(a *Agent) bool {
		if a.Session != "" && !a.Draining && a.Group == group && a.HasDriver(driver) {
			members = append(members, ring.Member{Agent: a.Name, Weight: a.Weight})
		}
		return true
	})
	return members
}

// Resumable tells whether an open flow has no open attempt although nothing stands in its way.
func (v *View) Resumable(f *flow.Flow) bool { return v.data.resumable(f) }
