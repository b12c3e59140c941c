package dispatch

import (
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/node"
)

// BenchmarkLockPairs is one agent with 2,048 tasks that take and release locks of their own nodes as fast as
// they are answered, over mutual TLS, with the real state and no log.
func BenchmarkLockPairs(b *testing.B) {
	r := newRig(b)
	const tasks = 2048
	ids := make([]node.ID, tasks)
	for i := range ids {
		ids[i] = r.node(i)
	}
	a := r.agent("a").connect()
	a.await("synced", func(m *farrierv1.CoordinatorMessage) bool { return m.GetSynced() != nil })
	batch := make([]*farrierv1.AgentMessage, 0, tasks)
	for i, id := range ids {
		batch = append(batch, lockMessage(uint64(i)+1, id, "bench", patient))
	}
	b.ResetTimer()
	a.send(batch...)
	for pairs := 0; pairs < b.N; {
		batch = batch[:0]
		for m := range a.drain() {
			reply := m.GetLockReply()
			switch {
			case reply == nil:
			case reply.Error != nil:
				b.Fatal(reply.Error)
			case reply.Token != 0:
				batch = append(batch, release(reply.Call, ids[(reply.Call-1)%tasks], reply.Token))
			default:
				pairs++
				call := reply.Call + tasks
				batch = append(batch, lockMessage(call, ids[(call-1)%tasks], "bench", patient))
			}
		}
		if len(batch) > 0 {
			a.send(batch...)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}

// drain waits for one message and yields all that have arrived.
func (a *agent) drain() func(func(*farrierv1.CoordinatorMessage) bool) {
	return func(yield func(*farrierv1.CoordinatorMessage) bool) {
		m, ok := <-a.inbox
		for ok {
			if !yield(m) {
				return
			}
			select {
			case m, ok = <-a.inbox:
			default:
				return
			}
		}
	}
}
