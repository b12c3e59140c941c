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
type View struct{ tables Tables }

// View is the state now, in O(1). Only the goroutine that calls Apply may call it.
func (s *State) View() *View { return &View{tables: s.Tables.freeze()} }

// Index is the log index of the newest applied command, 0 for an empty state.
func (v *View) Index() uint64 { return v.tables.Root.index }

// Elapsed is replicated time.
func (v *View) Elapsed() time.Duration { return v.tables.Root.Elapsed }

// Position is where the next event will come after: list at a view, then watch from its Position.
func (v *View) Position() Position { return Position{v.tables.Root.index, ^uint32(0)} }

// Cluster is what is common to all members. Its ID is "" before InitCluster.
func (v *View) Cluster() *Cluster { c := v.tables.Root.Cluster; return &c }

// Settings are the replicated timeouts and limits.
func (v *View) Settings() command.Settings { return v.tables.Root.Settings }

// Node finds a node by id.
func (v *View) Node(id node.ID) (*node.Node, bool) { n := v.tables.Node(id); return n, n != nil }

// ResolveNode finds a node by id, else by name.
func (v *View) ResolveNode(idOrName string) (*node.Node, bool) {
	if n := v.tables.Node(node.ID(idOrName)); n != nil {
		return n, true
	}
	n := v.tables.NodeNamed(idOrName)
	return n, n != nil
}

// Nodes visits nodes in id order, starting after an id ("" for all), until fn returns false.
func (v *View) Nodes(after node.ID, fn func(*node.Node) bool) {
	v.tables.Nodes.Ascend(after, func(n *node.Node) bool { return n.ID == after || fn(n) })
}

// NodesOf visits the nodes that an agent owns, in id order. Agent "" has the unowned ones.
func (v *View) NodesOf(agent string, fn func(*node.Node) bool) {
	v.visit(&v.tables.nodesOf, agent, fn)
}

func (v *View) visit(t *table.Tree[pair], key string, fn func(*node.Node) bool) {
	under(t, key, func(id string) bool { return fn(v.tables.Node(node.ID(id))) })
}

// Unowned visits nodes that no live agent could take.
func (v *View) Unowned(fn func(*node.Node) bool) { v.NodesOf("", fn) }

// PendingHandovers visits the nodes that this agent lost and has not yet acknowledged (PrevOwner).
func (v *View) PendingHandovers(agent string, fn func(*node.Node) bool) {
	v.visit(&v.tables.handovers, agent, fn)
}

// NodeCount is how many nodes there are.
func (v *View) NodeCount() int { return v.tables.Nodes.Len() }

// NodesWith is how many nodes an agent owns, in all rings.
func (v *View) NodesWith(agent string) int {
	total := 0
	v.tables.ringNodes.Scan(func(c count) bool {
		if c.agent == agent {
			total += c.n
		}
		return true
	})
	return total
}

// Held visits the nodes whose lock is held, in id order.
func (v *View) Held(fn func(*node.Node) bool) {
	v.tables.held.Scan(func(id node.ID) bool { return fn(v.tables.Node(id)) })
}

// Ports are a node's ports in id order.
func (v *View) Ports(id node.ID) []*node.Port { return v.tables.PortsOf(id) }

// Port finds a port by id.
func (v *View) Port(id string) (*node.Port, bool) { p := v.tables.Port(id); return p, p != nil }

// PortByMAC finds a port by its address, lower case with colons.
func (v *View) PortByMAC(mac string) (*node.Port, bool) {
	p := v.tables.PortByMAC(mac)
	return p, p != nil
}

// AllPorts visits ports in id order, starting after an id ("" for all), until fn returns false.
func (v *View) AllPorts(after string, fn func(*node.Port) bool) {
	v.tables.Ports.Ascend(after, func(p *node.Port) bool { return p.ID == after || fn(p) })
}

// Flow finds a flow. Only the newest flow of each node is kept.
func (v *View) Flow(id flow.ID) (*flow.Flow, bool) { f := v.tables.Flow(id); return f, f != nil }

// LastFlow is a node's open flow, or the last one.
func (v *View) LastFlow(id node.ID) (*flow.Flow, bool) {
	n := v.tables.Node(id)
	if n == nil || n.Flow == 0 {
		return nil, false
	}
	f := v.tables.Flow(n.Flow)
	return f, f != nil
}

// OpenFlows visits open flows, oldest first.
func (v *View) OpenFlows(fn func(*flow.Flow) bool) {
	v.tables.OpenFlows(fn)
}

// Session finds a live session: an agent's, or a client's (Client is set).
func (v *View) Session(id string) (*Session, bool) {
	if se := v.tables.Session(id); se != nil {
		return se, true
	}
	c := v.tables.Client(id)
	if c == nil || c.Ended {
		return nil, false
	}
	return &Session{ID: c.ID, Actor: c.Actor, Deadline: c.UsedAt + ClientIdle, Client: true}, true
}

// Sessions visits the live sessions of agents in id order.
func (v *View) Sessions(fn func(*Session) bool) { v.tables.Sessions.Scan(fn) }

// Clients is how many client sessions are known, ended ones included.
func (v *View) Clients() int { return v.tables.Clients.Len() }

// Answered is the stored answer to the actor's request, if it was done and its answer is kept: a repeat of it changes
// nothing.
func (v *View) Answered(actor string, r command.RequestID) (command.Result, bool) {
	c, a := v.tables.Client(r.Client), v.tables.Answers.Find(AnswerKey{r.Client, r.Seq})
	if c == nil || c.Actor != actor || a == nil || a.Gone || a.Digest != r.Digest {
		return command.Result{}, false
	}
	return a.Result, true
}

// Agent finds a registered agent, live or not.
func (v *View) Agent(name string) (*Agent, bool) {
	a := v.tables.Agent(name)
	return a, a != nil && !a.Removed
}

// Removed tells whether the agent was removed and has not joined again.
func (v *View) Removed(name string) bool {
	a := v.tables.Agent(name)
	return a != nil && a.Removed
}

// Agents visits the registered agents by name.
func (v *View) Agents(fn func(*Agent) bool) {
	v.tables.Agents.Scan(func(a *Agent) bool { return a.Removed || fn(a) })
}

// Members visits the coordinators by id.
func (v *View) Members(fn func(*command.Member) bool) { v.tables.Members.Scan(fn) }

// Member finds a coordinator.
func (v *View) Member(id string) (*command.Member, bool) {
	m := v.tables.Members.Find(id)
	return m, m != nil
}

// JoinToken finds an unexpired join token. A used one is kept for a while, for who used it.
func (v *View) JoinToken(id string) (*JoinToken, bool) {
	t := v.tables.JoinTokens.Find(id)
	return t, t != nil && t.Expires > v.tables.Root.Elapsed
}

// Certificate is the record of a key that the CA has certified, or nil: see Admit.
func (v *View) Certificate(key [32]byte) *Certificate { return v.tables.Certificates.Find(key) }

// Certificates visits the roster.
func (v *View) Certificates(fn func(*Certificate) bool) { v.tables.Certificates.Scan(fn) }

// RevokedCoordinators are the keys of coordinators that are believed no more, in order. It looks at the whole roster.
func (v *View) RevokedCoordinators() (keys [][32]byte) {
	v.Certificates(func(c *Certificate) bool {
		if c.Role == RoleCoordinator && c.RevokedBy != "" {
			keys = append(keys, c.Key)
		}
		return true
	})
	return keys
}

// Roster is a number that differs whenever the roster does.
func (v *View) Roster() uint64 { return v.tables.Certificates.Sum() }

// Alarms visits the newest alarms, oldest first.
func (v *View) Alarms(fn func(*Alarm) bool) { v.tables.alarms.Scan(fn) }

// Inventory is what inspection found on a node, as the agent compressed it, and when.
func (v *View) Inventory(id node.ID) ([]byte, time.Time, bool) {
	i := v.tables.Inventories.Find(id)
	if i == nil {
		return nil, time.Time{}, false
	}
	return i.Data, i.At, true
}

// BMCSessions is the sessions that may be open at a node's BMC, oldest first. It is not to be written.
func (v *View) BMCSessions(id node.ID) []command.BMCSession {
	if b := v.tables.BMCs.Find(id); b != nil {
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
	key := RingKey{group, driver}
	r := RingView{Group: group, Driver: driver, Members: v.tables.membersOf(key), Load: map[string]int{}}
	if rec := v.tables.Rings.Find(key); rec != nil {
		r.Epoch = rec.Epoch
	}
	v.tables.ringNodes.Ascend(count{group: group, driver: driver}, func(c count) bool {
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
func (v *View) Rings(fn func(*Ring) bool) { v.tables.Rings.Scan(fn) }

// Events are at most max events after a position, in order. floor is the newest position that is gone; when
// compacted is set the position asked for is below it: list at a view, then watch from there.
func (v *View) Events(after Position, max int) (evs []Event, floor Position, compacted bool) {
	floor = v.tables.Root.evicted
	if after.Less(floor) {
		return nil, floor, true
	}
	v.tables.events.Ascend(after, func(e *event) bool {
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
	v.tables.deadlines.Scan(func(d Deadline) bool {
		if d.At > now || max == 0 {
			return false
		}
		if d.Kind != attemptDeadline {
			return true
		}
		max--
		return fn(DueAttempt{Deadline: d.At, Flow: v.tables.Flow(d.flow)})
	})
}

// HasDeadlines tells whether anything waits for elapsed time: if not, ticks may pause.
func (v *View) HasDeadlines() bool { return v.tables.deadlines.Len() > 0 }

// NextDeadline is the earliest deadline of any kind.
func (v *View) NextDeadline() (time.Duration, bool) {
	d, ok := v.tables.deadlines.Min()
	return d.At, ok
}

// Queued is how many flows wait for the limit on concurrent deploys, and on cleans.
func (v *View) Queued() (deploys, cleans int) {
	v.tables.Queued(flow.LimitDeploy, func(flow.ID) bool { deploys++; return true })
	v.tables.Queued(flow.LimitClean, func(flow.ID) bool { cleans++; return true })
	return deploys, cleans
}

// Hash compares replicas: equal logs have equal hashes.
func (v *View) Hash() [16]byte { return v.tables.hash() }

// HashText is Hash in hex.
func (v *View) HashText() string { h := v.tables.hash(); return hex.EncodeToString(h[:]) }
