package task

import (
	"sync"

	"github.com/farrier-project/farrier/pkg/fault"
)

// pool bounds the goroutines that work on nodes. Orders never take the reserved share: what the agent starts
// itself finds room there.
type pool struct {
	size, reserved int

	mu      sync.Mutex
	orders  int
	spawned int
	wg      sync.WaitGroup
}

// forOrders is how many orders may run beside spawned tasks.
func (p *pool) forOrders(spawned int) int { return max(min(p.size-p.reserved, p.size-spawned), 1) }

// start runs an order, for which work has found room. ended must be called by fn when its work is over.
func (p *pool) start(fn func()) {
	p.mu.Lock()
	p.orders++
	p.mu.Unlock()
	p.wg.Go(fn)
}

func (p *pool) ended() {
	p.mu.Lock()
	p.orders--
	p.mu.Unlock()
}

// spawn starts fn on a worker, or answers Busy. resize is called when the orders' share has changed.
func (p *pool) spawn(fn func(), resize func(int)) error {
	p.mu.Lock()
	if p.orders+p.spawned >= p.size {
		p.mu.Unlock()
		return fault.New(fault.Busy, "spawn task", "all %d workers are busy", p.size).
			WithHelp("try again, or raise workers in the agent's configuration")
	}
	p.spawned++
	n := p.spawned
	p.mu.Unlock()
	resize(p.forOrders(n))
	p.wg.Go(func() {
		defer func() {
			p.mu.Lock()
			p.spawned--
			n := p.spawned
			p.mu.Unlock()
			resize(p.forOrders(n))
		}()
		fn()
	})
	return nil
}

func (p *pool) wait() { p.wg.Wait() }
