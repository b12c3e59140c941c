package state

import (
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/coordinator/table"
)

// What is not there is nil.

// Node finds a node by id.
func (d *Tables) Node(id node.ID) *node.Node { return d.Nodes.Find(id) }

// Port finds a port by id.
func (d *Tables) Port(id string) *node.Port { return d.Ports.Find(id) }

// Flow finds a flow.
func (d *Tables) Flow(id flow.ID) *flow.Flow { return d.Flows.Find(id) }

// Session finds an agent's session.
func (d *Tables) Session(id string) *Session { return d.Sessions.Find(id) }

// Client finds a client session, an ended one too.
func (d *Tables) Client(id string) *Client { return d.Clients.Find(id) }

// Agent finds an agent, a removed one too.
func (d *Tables) Agent(name string) *Agent { return d.Agents.Find(name) }

// NodeNamed finds a node by its name; "" is nobody's.
func (d *Tables) NodeNamed(name string) *node.Node {
	id, ok := first(&d.nodeNames, name)
	if !ok || name == "" {
		return nil
	}
	return d.Node(node.ID(id))
}

// PortByMAC finds a port by its address.
func (d *Tables) PortByMAC(mac string) *node.Port {
	id, ok := first(&d.portMACs, mac)
	if !ok {
		return nil
	}
	return d.Port(id)
}

// first is the first id under a key.
func first(t *table.Tree[pair], key string) (id string, ok bool) {
	t.Ascend(pair{key: key}, func(p pair) bool {
		id, ok = p.id, p.key == key
		return false
	})
	return id, ok
}

// under visits the ids under a key, in order, until fn returns false.
func under(t *table.Tree[pair], key string, fn func(id string) bool) {
	t.Ascend(pair{key: key}, func(p pair) bool { return p.key == key && fn(p.id) })
}

// PortsOf are a node's ports in id order.
func (d *Tables) PortsOf(id node.ID) (ports []*node.Port) {
	under(&d.portsOf, string(id), func(id string) bool { ports = append(ports, d.Port(id)); return true })
	return ports
}

// NodesOf are the nodes of an owner in id order; of "" those that have none.
func (d *Tables) NodesOf(agent string) []node.ID { return nodesUnder(&d.nodesOf, agent) }

// HandoversOf are the nodes that an agent has to let go of, in id order.
func (d *Tables) HandoversOf(agent string) []node.ID { return nodesUnder(&d.handovers, agent) }

func nodesUnder(t *table.Tree[pair], key string) (ids []node.ID) {
	under(t, key, func(id string) bool { ids = append(ids, node.ID(id)); return true })
	return ids
}

// Locked visits the nodes whose lock is held, in id order, until fn returns false. fn must not change them.
func (d *Tables) Locked(fn func(node.ID) bool) { d.held.Scan(fn) }

// OpenFlows visits the open flows, oldest first, until fn returns false. fn must not change them.
func (d *Tables) OpenFlows(fn func(*flow.Flow) bool) {
	d.openFlows.Scan(func(id flow.ID) bool { return fn(d.Flow(id)) })
}

// Queued visits the flows that wait for a limit, oldest first, until fn returns false. fn must not change them.
func (d *Tables) Queued(limit flow.Limit, fn func(flow.ID) bool) {
	d.queuedFlows.Ascend(queued{limit: limit}, func(q queued) bool { return q.limit == limit && fn(q.id) })
}

// Expired is what has come to its end by elapsed time, but for attempts, in the order of the ends.
func (d *Tables) Expired() (over []Deadline) {
	d.deadlines.Scan(func(x Deadline) bool {
		if x.At > d.Root.Elapsed {
			return false
		}
		if x.Kind != attemptDeadline {
			over = append(over, x)
		}
		return true
	})
	return over
}

// IdlestClient is the ended client session that was not used for the longest time.
func (d *Tables) IdlestClient() (id string, some bool) {
	c, some := d.endedClients.Min()
	return c.ID, some
}

// membersOf are the agents that may be given nodes of a ring.
func (d *Tables) membersOf(key RingKey) (members []ring.Member) {
	d.Agents.Scan(func(a *Agent) bool {
		if a.Session != "" && !a.Draining && a.Group == key.Group && a.HasDriver(key.Driver) {
			members = append(members, ring.Member{Agent: a.Name, Weight: a.Weight})
		}
		return true
	})
	return members
}

// RingMembers are the agents that may be given nodes of a ring, by name. It is not to be written.
func (s *State) RingMembers(key RingKey) []ring.Member {
	members, cached := s.ringMembers[key]
	if !cached {
		members = s.membersOf(key)
		s.ringMembers[key] = members
	}
	return members
}

// RingLoad is how many nodes of a ring an agent owns.
func (d *Tables) RingLoad(key RingKey, agent string) int {
	c, _ := d.ringNodes.Get(count{group: key.Group, driver: key.Driver, agent: agent})
	return c.n
}

// RingSize is how many nodes a ring has.
func (d *Tables) RingSize(key RingKey) int {
	c, _ := d.ringTotals.Get(count{group: key.Group, driver: key.Driver})
	return c.n
}
