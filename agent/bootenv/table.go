package bootenv

import (
	"net/netip"
	"sync"
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
)

// The bounds of one Table.
const (
	MaxPorts  = 64   // of one machine
	MaxClosed = 4096 // closed boot ids that are remembered, so that their ramdisks are told to halt
)

// Table holds the machines. The zero Table is not usable: see New.
type Table struct {
	mu     sync.RWMutex // guards all fields below
	nodes  map[string]*Machine
	byMAC  map[MAC]*Machine
	byIP   map[netip.Addr]MAC
	byBoot map[string]*Machine
	closed map[string]struct{}
	order  []string // closed boot ids, oldest first: a ring once full
	next   int
}

// New makes an empty table.
func New() *Table {
	return &Table{
		nodes: map[string]*Machine{}, byMAC: map[MAC]*Machine{}, byIP: map[netip.Addr]MAC{},
		byBoot: map[string]*Machine{}, closed: map[string]struct{}{},
	}
}

// Put adds a machine, or replaces what is known of the node. An assignment with a lower epoch than the one held is
// refused as StaleToken and changes nothing. The newest word wins: a MAC, an address or a boot id that another
// node holds is taken from it, because ports move between nodes and the two assignments come in any order. A boot
// attempt that the new Machine does not carry on is closed.
func (t *Table) Put(m Machine) error {
	if err := valid(&m); err != nil {
		return err
	}
	m.Ports = append([]Port(nil), m.Ports...)
	if m.Boot != nil {
		b := *m.Boot
		m.Boot = &b
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.nodes[m.Node]
	if old != nil && m.Epoch < old.Epoch {
		return fault.New(fault.StaleToken, "assign machine", "node %s has epoch %d, got %d", m.Node, old.Epoch, m.Epoch)
	}
	if old != nil {
		t.unlink(old)
		if old.Boot != nil && (m.Boot == nil || m.Boot.ID != old.Boot.ID) {
			t.close(old.Boot.ID)
		}
		if old.Boot != nil && m.Boot != nil && m.Boot.ID == old.Boot.ID && old.Boot.Claimed {
			m.Boot.Claimed = true // a claim is never taken back
		}
	}
	t.takeFromOthers(&m)
	t.link(&m)
	return nil
}

func valid(m *Machine) error {
	if m.Node == "" || len(m.Ports) > MaxPorts || m.Boot != nil && m.Boot.ID == "" {
		return fault.New(fault.Invalid, "assign machine", "node %q with %d ports", m.Node, len(m.Ports))
	}
	for i, p := range m.Ports {
		for _, q := range m.Ports[:i] {
			if p.MAC == q.MAC || p.IP.IsValid() && p.IP == q.IP {
				return fault.New(fault.Invalid, "assign machine", "node %s names %s or its address twice", m.Node, p.MAC)
			}
		}
	}
	return nil
}

// takeFromOthers removes from other machines what m is about to hold.
func (t *Table) takeFromOthers(m *Machine) {
	for _, p := range m.Ports {
		if o := t.byMAC[p.MAC]; o != nil {
			t.replace(o, func(c *Machine) { c.Ports = without(c.Ports, func(q Port) bool { return q.MAC == p.MAC }) })
		}
		if mac, held := t.byIP[p.IP]; held && p.IP.IsValid() {
			t.replace(t.byMAC[mac], func(c *Machine) {
				c.Ports = append([]Port(nil), c.Ports...)
				for i := range c.Ports {
					if c.Ports[i].IP == p.IP {
						c.Ports[i].IP = netip.Addr{}
					}
				}
			})
		}
	}
	if m.Boot != nil {
		if o := t.byBoot[m.Boot.ID]; o != nil {
			t.replace(o, func(c *Machine) { c.Boot = nil })
		}
	}
}

func (t *Table) replace(old *Machine, change func(*Machine)) {
	c := *old
	t.unlink(old)
	change(&c)
	t.link(&c)
}

func without(ports []Port, drop func(Port) bool) []Port {
	kept := make([]Port, 0, len(ports))
	for _, p := range ports {
		if !drop(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

func (t *Table) link(m *Machine) {
	t.nodes[m.Node] = m
	for _, p := range m.Ports {
		t.byMAC[p.MAC] = m
		if p.IP.IsValid() {
			t.byIP[p.IP] = p.MAC
		}
	}
	if m.Boot != nil {
		t.byBoot[m.Boot.ID] = m
		delete(t.closed, m.Boot.ID) // handed away and back: it is open again
	}
}

func (t *Table) unlink(m *Machine) {
	delete(t.nodes, m.Node)
	for _, p := range m.Ports {
		delete(t.byMAC, p.MAC)
		if p.IP.IsValid() {
			delete(t.byIP, p.IP)
		}
	}
	if m.Boot != nil {
		delete(t.byBoot, m.Boot.ID)
	}
}

// close remembers a boot id as over, and forgets the oldest beyond MaxClosed.
func (t *Table) close(id string) {
	if _, ok := t.closed[id]; ok {
		return
	}
	t.closed[id] = struct{}{}
	if len(t.order) < MaxClosed {
		t.order = append(t.order, id)
		return
	}
	delete(t.closed, t.order[t.next])
	t.order[t.next] = id
	t.next = (t.next + 1) % MaxClosed
}

// Remove takes the node out, unless it is held under a higher epoch. It tells whether the node is gone. A boot
// attempt that moves to another agent is not closed by it: it is unknown here from now on.
func (t *Table) Remove(node string, epoch uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.nodes[node]
	if m == nil {
		return true
	}
	if m.Epoch > epoch {
		return false
	}
	t.unlink(m)
	return true
}

// CloseBoot ends a boot attempt: nothing is served for it from now on.
func (t *Table) CloseBoot(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.byBoot[id]; m != nil {
		t.replace(m, func(c *Machine) { c.Boot = nil })
	}
	t.close(id)
}

// Claim marks a boot attempt as used by a ramdisk. It tells whether the attempt is open here.
func (t *Table) Claim(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.byBoot[id]
	if m == nil {
		return false
	}
	c, b := *m, *m.Boot
	b.Claimed = true
	c.Boot = &b
	t.link(&c)
	return true
}

// ByMAC finds the machine that has the MAC.
func (t *Table) ByMAC(mac MAC) (*Machine, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	m, ok := t.byMAC[mac]
	return m, ok
}

// ByNode finds the machine of a node.
func (t *Table) ByNode(node string) (*Machine, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	m, ok := t.nodes[node]
	return m, ok
}

// Reserved tells for which MAC an address is kept.
func (t *Table) Reserved(ip netip.Addr) (MAC, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	mac, ok := t.byIP[ip]
	return mac, ok
}

// ByBoot finds the machine whose boot attempt has the id. Expired says that the attempt is over: the machine is
// returned with it when the attempt merely ran out of time.
func (t *Table) ByBoot(id string, now time.Duration) (*Machine, Standing) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if m := t.byBoot[id]; m != nil {
		if now >= m.Boot.Expires && !m.Boot.Claimed {
			return m, Over
		}
		return m, Open
	}
	if _, ok := t.closed[id]; ok {
		return nil, Over
	}
	return nil, Unknown
}

// Standing is how a boot id stands with this agent.
type Standing uint8

// The standings.
const (
	Unknown Standing = iota // never seen here, or handed to another agent
	Open
	Over // expired, or closed
)

// Len counts the machines.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.nodes)
}

// Nodes lists the nodes held, in no order.
func (t *Table) Nodes() []*Machine {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*Machine, 0, len(t.nodes))
	for _, m := range t.nodes {
		all = append(all, m)
	}
	return all
}
