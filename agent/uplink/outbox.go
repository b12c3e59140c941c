package uplink

import (
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

var errEOF = io.EOF // Send's word for "the server has closed: Receive tells why"

// Bounds of what is remembered.
const (
	maxEdges   = 8       // of one node
	maxPending = 400_000 // messages for one stream; the stream would be stale long before
)

// outbox holds what goes up next. While no stream is open, outcomes are dropped: the next hello says them.
type outbox struct {
	wake chan struct{}

	mu       sync.Mutex // guards all fields below
	ready    bool
	stream   uint64 // number of the stream that is, or was, collected for
	messages []*farrierv1.AgentMessage
	progress map[string]*farrierv1.StepProgress // newest by node
	edges    map[string][]*farrierv1.Edge       // by node, oldest first: said again on each stream
	free     *farrierv1.Capacity                // newest
}

func (o *outbox) init() {
	o.wake = make(chan struct{}, 1)
	o.progress = make(map[string]*farrierv1.StepProgress)
	o.edges = make(map[string][]*farrierv1.Edge)
}

func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// open begins to collect for a new stream.
func (o *outbox) open() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready = true
	o.stream++
	o.messages, o.free = nil, nil
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready = false
	o.messages, o.free = nil, nil
	clear(o.progress)
}

// add says m on the open stream and returns the stream's number; 0: it was dropped.
func (o *outbox) add(m *farrierv1.AgentMessage) (stream uint64) {
	o.mu.Lock()
	if o.ready && len(o.messages) < maxPending {
		o.messages = append(o.messages, m)
		stream = o.stream
	}
	o.mu.Unlock()
	o.poke()
	return stream
}

// number is that of the open stream.
func (o *outbox) number() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream
}

// take removes at most n messages, and no more than maxBytes of them unless the first alone is larger.
func (o *outbox) take(n int) []*farrierv1.AgentMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, size := 0, 0
	for k < min(n, len(o.messages)) {
		if size += proto.Size(o.messages[k]) + fieldBytes; size > maxBytes && k > 0 {
			break
		}
		k++
	}
	batch := o.messages[:k:k]
	o.messages = o.messages[k:]
	if len(o.messages) == 0 {
		o.messages = nil
		if o.free != nil {
			batch = append(batch, &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Capacity{Capacity: o.free}})
			o.free = nil
		}
		for node, p := range o.progress {
			if len(batch) >= n {
				break
			}
			batch = append(batch, &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Progress{Progress: p}})
			delete(o.progress, node)
		}
	}
	return batch
}

// repeatEdges says every remembered edge again.
func (o *outbox) repeatEdges() {
	o.mu.Lock()
	for _, all := range o.edges {
		for _, e := range all {
			o.messages = append(o.messages, &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Edge{Edge: e}})
		}
	}
	o.mu.Unlock()
	o.poke()
}

// settle forgets the edges of a node's earlier boot attempts.
func (o *outbox) settle(node, boot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.edges[node][:0:0]
	for _, e := range o.edges[node] {
		if e.BootId == boot && boot != "" {
			kept = append(kept, e)
		}
	}
	if len(kept) == 0 {
		delete(o.edges, node)
		return
	}
	o.edges[node] = kept
}

// Edge says that something happened to a machine.
type Edge struct {
	Node, BootID, Kind, KeyHash, Detail string
	Flow                                uint64
}

// supersedes tells whether e makes an earlier edge of the same boot untrue: silence, and its end, are states; only the
// newest is said again.
func (e Edge) supersedes(old *farrierv1.Edge) bool {
	if old.BootId != e.BootID {
		return false
	}
	silence := func(kind string) bool { return kind == "silent" || kind == "heard" }
	return old.Kind == e.Kind || silence(old.Kind) && silence(e.Kind)
}

// Edge sends e up, now and on each later stream until the node has another boot attempt.
func (u *Uplink) Edge(e Edge) {
	m := &farrierv1.Edge{Node: e.Node, Flow: e.Flow, BootId: e.BootID, Kind: e.Kind, KeyHash: e.KeyHash, Detail: e.Detail}
	u.out.mu.Lock()
	all := u.out.edges[e.Node]
	for i, old := range all {
		if e.supersedes(old) {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	if len(all) >= maxEdges {
		all = all[1:]
	}
	u.out.edges[e.Node] = append(all, m)
	u.out.mu.Unlock()
	u.out.add(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Edge{Edge: m}})
}

// PowerSeen sends up what was seen of a node's power, under an epoch; power "" is that it could not be read, and why. Without a
// stream it is dropped: who sees it sees it again.
func (u *Uplink) PowerSeen(node string, epoch uint64, power, why string) {
	u.out.add(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_PowerSeen{PowerSeen: &farrierv1.PowerSeen{
		Node: node, Epoch: epoch, PowerState: power, Error: why,
	}}})
}

// Report implements task.Sink.
func (u *Uplink) Report(o work.Outcome) {
	u.out.add(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_Outcome{Outcome: toOutcome(o)}})
}

// TornDown implements task.Sink.
func (u *Uplink) TornDown(node string, epoch uint64) {
	u.out.settle(node, "")
	u.out.add(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_TeardownDone{TeardownDone: &farrierv1.TeardownDone{Node: node, Epoch: epoch}}})
}

// Capacity implements task.Sink. Only the newest counts.
func (u *Uplink) Capacity(free int) {
	u.out.mu.Lock()
	if u.out.ready {
		u.out.free = &farrierv1.Capacity{FreeWorkers: uint32(max(free, 0))}
	}
	u.out.mu.Unlock()
	u.out.poke()
}

// Progress is what a running step says of itself.
type Progress struct {
	Done, Total, Rate, Skipped uint64
	Text                       string
}

// Progress sends p up with the next batch; of one node only the newest.
func (u *Uplink) Progress(ref work.Ref, token uint64, p Progress) {
	u.out.mu.Lock()
	defer u.out.mu.Unlock()
	if u.out.ready {
		u.out.progress[ref.Node] = &farrierv1.StepProgress{Ref: ToRef(ref, token), Progress: &farrierv1.Progress{
			Done: p.Done, Total: p.Total, Rate: p.Rate, Text: p.Text, Skipped: p.Skipped,
		}}
	}
}
