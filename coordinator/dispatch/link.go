package dispatch

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
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

	out  outbox
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
		out: newOutbox(), told: newTold(h.FreeWorkers), more: make(chan struct{}, 1), room: make(chan struct{}, 1),
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
				l.out.end(l.d.redirection())
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
		messages, drained, over := l.out.take(maxPerResponse)
		if drained {
			l.d.planner.wake() // it may have waited for room
		}
		if len(messages) > 0 {
			c.rc.SetWriteDeadline(time.Now().Add(sendWithin))
			if err := stream.Send(&farrierv1.ConnectResponse{Messages: messages}); err != nil {
				return fmt.Errorf("%w: send: %w", errStreamOver, err)
			}
			c.rc.SetWriteDeadline(time.Time{})
			continue
		}
		if over != nil {
			return over
		}
		select {
		case <-l.out.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outbox holds messages for one agent. Put never blocks: what does not fit ends the stream, and the agent comes
// again to be told everything.
type outbox struct {
	mu       sync.Mutex // guards the fields below
	messages []*farrierv1.CoordinatorMessage
	high     bool  // the planner found it full
	over     error // nothing is added any more
	more     chan struct{}
}

func newOutbox() outbox { return outbox{more: make(chan struct{}, 1)} }

func (o *outbox) put(messages ...*farrierv1.CoordinatorMessage) {
	o.mu.Lock()
	switch {
	case o.over != nil:
	case len(o.messages)+len(messages) > maxOutbox:
		o.over = fault.New(fault.Busy, "send to an agent", "%d messages wait", len(o.messages))
		o.messages = nil
	default:
		o.messages = append(o.messages, messages...)
	}
	o.mu.Unlock()
	signal(o.more)
}

// end adds a last message.
func (o *outbox) end(last *farrierv1.CoordinatorMessage) {
	o.mu.Lock()
	if o.over == nil {
		o.messages, o.over = append(o.messages, last), errStreamOver
	}
	o.mu.Unlock()
	signal(o.more)
}

// roomy tells the planner whether it may add more. If not, take reports when it may.
func (o *outbox) roomy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.high = len(o.messages) >= outboxHigh
	return !o.high
}

func (o *outbox) take(n int) (messages []*farrierv1.CoordinatorMessage, drained bool, over error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := 0
	n = min(n, len(o.messages))
	for i, m := range o.messages[:n] {
		if size += sizeOf(m); size > maxResponseBytes && i > 0 {
			n = i
			break
		}
	}
	messages = o.messages[:n:n]
	if o.messages = o.messages[n:]; len(o.messages) == 0 {
		o.messages = nil
	}
	if o.high && len(o.messages) < outboxHigh/2 {
		o.high, drained = false, true
	}
	return messages, drained, o.over
}

// sizeOf is about what m takes on the wire. Only assignments and orders can be large.
func sizeOf(m *farrierv1.CoordinatorMessage) int {
	switch m.Body.(type) {
	case *farrierv1.CoordinatorMessage_Assign, *farrierv1.CoordinatorMessage_Order, *farrierv1.CoordinatorMessage_GroupInfo:
		return proto.Size(m)
	default:
		return 256
	}
}

// signal sets a coalesced wake-up.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
