package progress

import (
	"sync"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
)

// most is how many nodes have progress at once. Nodes beyond it have none, and nothing else changes.
const most = 131072

// Said is what the running step of a node last said of itself.
type Said struct {
	Flow flow.ID
	Step int
	What *farrierv1.Progress // never written after Put
}

// Board has what was said, by node. The zero Board is empty. It is safe for concurrent use.
type Board struct {
	mu    sync.Mutex // guards nodes
	nodes map[node.ID]Said
}

// Put replaces what was said of a node before.
func (b *Board) Put(id node.ID, s Said) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.nodes == nil {
		b.nodes = map[node.ID]Said{}
	}
	if _, known := b.nodes[id]; known || len(b.nodes) < most {
		b.nodes[id] = s
	}
}

// Get is what was said of a node last.
func (b *Board) Get(id node.ID) (s Said, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok = b.nodes[id]
	return s, ok
}

// Drop forgets a node.
func (b *Board) Drop(id node.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.nodes, id)
}

// Clear forgets everything.
func (b *Board) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.nodes)
}
