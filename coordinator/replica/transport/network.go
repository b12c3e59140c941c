package transport

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Network connects the members of one process. It is safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	timeout time.Duration
	nodes   map[string]*raft.InmemTransport
	lines   map[string]*Line
	cut     map[[2]string]bool
}

// NewNetwork makes a network whose calls fail after the timeout.
func NewNetwork(timeout time.Duration) *Network {
	return &Network{timeout: timeout, nodes: map[string]*raft.InmemTransport{}, lines: map[string]*Line{}, cut: map[[2]string]bool{}}
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

// Line is a member's place on a network, for side messages.
type Line struct {
	network         *Network
	address, member string
	heard           func(member string, message io.Reader)
}

// Attach gives the address to a member, in place of an earlier one. heard is called for each side message that it is sent.
func (n *Network) Attach(address, member string, heard func(member string, message io.Reader)) *Line {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &Line{network: n, address: address, member: member, heard: heard}
	n.lines[address] = l
	return l
}

// Detach takes the member off the network, unless its address is another's by now.
func (l *Line) Detach() {
	n := l.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lines[l.address] != l {
		return
	}
	delete(n.lines, l.address)
	delete(n.nodes, l.address)
	for _, t := range n.nodes {
		t.Disconnect(raft.ServerAddress(l.address))
	}
}

// Send delivers a side message to the member at the address; it may be lost.
func (l *Line) Send(_ context.Context, address string, message []byte) error {
	n := l.network
	n.mu.Lock()
	to, cut := n.lines[address], n.cut[[2]string{l.address, address}]
	n.mu.Unlock()
	if to == nil || cut {
		return ErrClosed
	}
	to.heard(l.member, bytes.NewReader(message))
	return nil
}
