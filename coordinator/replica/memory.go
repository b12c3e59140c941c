package replica

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/ballot"
)

// Memory stands in for a data directory, so that clusters run in testing/synctest. It outlives the Replica that uses it,
// as a disk does. Its fields may be wrapped before the member is opened, to inject faults.
type Memory struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	made      bool
}

// NewMemory makes an empty one, without a member: see Bootstrap and Join.
func NewMemory() *Memory {
	s := raft.NewInmemStore()
	return &Memory{Logs: s, Stable: s, Snapshots: raft.NewInmemSnapshotStore()}
}

// Network connects the members of one process. It is safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	timeout time.Duration
	nodes   map[string]*raft.InmemTransport
	members map[string]*Replica
	cut     map[[2]string]bool
}

// NewNetwork makes a network whose calls fail after the timeout.
func NewNetwork(timeout time.Duration) *Network {
	return &Network{timeout: timeout, nodes: map[string]*raft.InmemTransport{}, members: map[string]*Replica{}, cut: map[[2]string]bool{}}
}

// Transport makes the transport of an address, in place of an earlier one.
func (n *Network) Transport(address string) *raft.InmemTransport {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, t := raft.NewInmemTransportWithTimeout(raft.ServerAddress(address), n.timeout)
	n.nodes[address] = t
	n.wire()
	return t
}

// Cut ends what goes from one address to another, until either is healed.
func (n *Network) Cut(from, to string) { n.set(from, to, true) }

// Isolate cuts an address off in both directions.
func (n *Network) Isolate(address string) { n.all(address, true) }

// Heal connects an address in both directions.
func (n *Network) Heal(address string) { n.all(address, false) }

func (n *Network) all(address string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		n.cut[[2]string{address, other}], n.cut[[2]string{other, address}] = cut, cut
	}
	n.wire()
}

func (n *Network) set(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = cut
	n.wire()
}

func (n *Network) wire() {
	for a, from := range n.nodes {
		for b, to := range n.nodes {
			if a == b {
				continue
			}
			if n.cut[[2]string{a, b}] {
				from.Disconnect(raft.ServerAddress(b))
			} else {
				from.Connect(raft.ServerAddress(b), to)
			}
		}
	}
}

func (n *Network) attach(address string, r *Replica) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members[address] = r
}

func (n *Network) detach(address string, r *Replica) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members[address] != r {
		return
	}
	delete(n.members, address)
	delete(n.nodes, address)
	for _, t := range n.nodes {
		t.Disconnect(raft.ServerAddress(address))
	}
}

// post is a member's way to send side messages over the network; it implements peers.
type post struct {
	network         *Network
	address, member string
}

func (p post) send(_ context.Context, address string, m ballot.Message) error {
	n := p.network
	n.mu.Lock()
	to, cut := n.members[address], n.cut[[2]string{p.address, address}]
	n.mu.Unlock()
	if to == nil || cut || !to.ready.Load() {
		return errClosed
	}
	to.heard(p.member, m)
	return nil
}
