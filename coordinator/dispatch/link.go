package dispatch

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/dispatch/outbox"
	"github.com/farrier-project/farrier/pkg/fault"
)

// link is one agent's stream.
type link struct {
	d       *Dispatch
	agent   string
	actor   string
	group   string
	session string
	term    uint64 // in which it was opened

	out  *outbox.Outbox
	told told // the planner's alone

	renewed atomic.Uint64 // highest renewal received
	acked   atomic.Uint64 // highest renewal whose tick is applied
	free    atomic.Uint32 // workers, as last advertised
	beats   atomic.Uint64 // ramdisk heartbeats summed up so far

	mu      sync.Mutex // guards pending and bytes
	pending []item     // received, not yet proposed, in order
	more    chan struct{}
	room    chan struct{}
}

func newLink(d *Dispatch, h *farrierv1.Hello, session string, term uint64) *link {
	l := &link{
		d: d, agent: h.Agent, actor: "agent " + h.Agent, group: h.Group, session: session, term: term,
		out: outbox.New(), told: newTold(h.FreeWorkers), more: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	l.free.Store(h.FreeWorkers)
	return l
}

// receive sorts one request: what is for the log waits for the submitter, the rest is noted. It blocks while the
// submitter is far behind.
func (l *link) receive(ctx context.Context, messages []*farrierv1.AgentMessage) error {
	if len(messages) > maxPerRequest {
		return fault.New(fault.TooLarge, "read an agent's request", "%d messages; at most %d", len(messages), maxPerRequest)
	}
	items := make([]item, 0, len(messages))
	for _, m := range messages {
		switch b := m.GetBody().(type) {
		case *farrierv1.AgentMessage_Renew:
			storeMax(&l.renewed, b.Renew.GetSeq())
		case *farrierv1.AgentMessage_LockRequest:
			items = append(items, l.lockRequest(b.LockRequest))
		case *farrierv1.AgentMessage_LockRelease:
			items = append(items, l.lockRelease(b.LockRelease))
		case *farrierv1.AgentMessage_Outcome:
			items = append(items, l.outcome(b.Outcome))
		case *farrierv1.AgentMessage_Edge:
			items = append(items, l.edge(b.Edge))
		case *farrierv1.AgentMessage_PowerSeen:
			if it, news := l.powerSeen(b.PowerSeen); news {
				items = append(items, it)
			}
		case *farrierv1.AgentMessage_TeardownDone:
			items = append(items, l.teardown(b.TeardownDone))
		case *farrierv1.AgentMessage_BmcSession:
			items = append(items, l.bmcSession(b.BmcSession))
		case *farrierv1.AgentMessage_Progress:
			l.progress(b.Progress)
		case *farrierv1.AgentMessage_Capacity:
			l.free.Store(b.Capacity.GetFreeWorkers())
			l.d.planner.note(note{kind: noteCapacity, link: l, free: b.Capacity.GetFreeWorkers()})
		case *farrierv1.AgentMessage_Heartbeats:
			l.beats.Add(uint64(b.Heartbeats.GetBeats()))
		case *farrierv1.AgentMessage_Hello:
			return fault.New(fault.Invalid, "read an agent's request", "hello was said before")
		default:
			return fault.New(fault.Unsupported, "read an agent's request", "a message of a kind that this version does not know").
				WithHelp("upgrade the coordinators before the agents")
		}
	}
	return l.enqueue(ctx, items)
}

// acknowledge says that the tick that carried a renewal is applied.
func (l *link) acknowledge(seq uint64) {
	l.acked.Store(seq)
	l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Renewed{Renewed: &farrierv1.Renewed{Seq: seq}}})
}

func storeMax(a *atomic.Uint64, v uint64) {
	for was := a.Load(); v > was && !a.CompareAndSwap(was, v); was = a.Load() {
	}
}

// enqueue hands items to the submitter, in order.
func (l *link) enqueue(ctx context.Context, items []item) error {
	for len(items) > 0 {
		l.mu.Lock()
		n := min(len(items), maxPending-len(l.pending))
		l.pending = append(l.pending, items[:n]...)
		l.mu.Unlock()
		items = items[n:]
		if n > 0 {
			signal(l.more)
		}
		if len(items) == 0 {
			break
		}
		select {
		case <-l.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// take is the next batch for one proposal.
func (l *link) take() []item {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.pending) && n < maxBatch && (n == 0 || size < maxBatchBytes) {
		size += l.pending[n].size
		n++
	}
	batch := l.pending[:n:n]
	if l.pending = l.pending[n:]; len(l.pending) == 0 {
		l.pending = nil
	}
	signal(l.room)
	return batch
}

// submitAll proposes what has been received, one proposal at a time: what arrives meanwhile is the next one.
func (l *link) submitAll(ctx context.Context) error {
	for {
		batch := l.take()
		if len(batch) == 0 {
			select {
			case <-l.more:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := l.submit(ctx, batch); err != nil {
			if fault.Is(err, fault.NotLeader) {
				l.out.End(l.d.redirection())
				<-ctx.Done() // the writer says so, and ends the stream
				return ctx.Err()
			}
			return err
		}
	}
}

// write sends what is in the outbox until it is ended.
func (l *link) write(ctx context.Context, c *caller, stream *connect.BidiStream[farrierv1.ConnectRequest, farrierv1.ConnectResponse]) error {
	for {
		messages, drained, over := l.out.Take(maxPerResponse)
		if drained {
			l.d.planner.wake() // it may have waited for room
		}
		if len(messages) > 0 {
			c.rc.SetWriteDeadline(time.Now().Add(sendWithin))
			if err := stream.Send(&farrierv1.ConnectResponse{Messages: messages}); err != nil {
				return fmt.Errorf("%w: send: %w", outbox.ErrEnded, err)
			}
			c.rc.SetWriteDeadline(time.Time{})
			continue
		}
		if over != nil {
			return over
		}
		select {
		case <-l.out.More():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// signal sets a coalesced wake-up.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
