package dispatch

import (
	"sync"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
)

// progress remembers, per node, what the running step last said of itself. It is bounded: nodes beyond the bound
// have no progress, and nothing else changes.
type progress struct {
	mu    sync.Mutex // guards nodes
	nodes map[node.ID]said
}

type said struct {
	flow flow.ID
	step int
	text *farrierv1.Progress // never written after put
}

func newProgress() *progress { return &progress{nodes: map[node.ID]said{}} }

func (p *progress) put(id node.ID, f flow.ID, step int, text *farrierv1.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.nodes[id]; known || len(p.nodes) < maxProgress {
		p.nodes[id] = said{f, step, text}
	}
}

func (p *progress) get(id node.ID) (flow.ID, int, *farrierv1.Progress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.nodes[id]
	return s.flow, s.step, s.text, ok
}

func (p *progress) drop(id node.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.nodes, id)
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.nodes)
}
