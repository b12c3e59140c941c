package outbox

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

const (
	most      = 65536   // messages that wait; then the stream is cut
	high      = 8192    // at which Roomy says no, until it is half empty
	mostBytes = 1 << 20 // of what one Take answers, unless one message alone is larger
)

// ErrEnded is of an outbox that End was called of: what was in it has been taken.
var ErrEnded = errors.New("the stream is over") // read-only

// Outbox is safe for concurrent use; one goroutine takes.
type Outbox struct {
	more chan struct{}

	mu       sync.Mutex // guards the fields below
	messages []*farrierv1.CoordinatorMessage
	full     bool  // Roomy said no
	over     error // nothing is added any more
}

// New is an empty outbox.
func New() *Outbox { return &Outbox{more: make(chan struct{}, 1)} }

// More tells, coalesced, that there is something to take.
func (o *Outbox) More() <-chan struct{} { return o.more }

// Put adds messages, unless the outbox is ended.
func (o *Outbox) Put(messages ...*farrierv1.CoordinatorMessage) {
	o.mu.Lock()
	switch {
	case o.over != nil:
	case len(o.messages)+len(messages) > most:
		o.over = fault.New(fault.Busy, "send to an agent", "%d messages wait", len(o.messages))
		o.messages = nil
	default:
		o.messages = append(o.messages, messages...)
	}
	o.mu.Unlock()
	o.signal()
}

// End adds a last message.
func (o *Outbox) End(last *farrierv1.CoordinatorMessage) {
	o.mu.Lock()
	if o.over == nil {
		o.messages, o.over = append(o.messages, last), ErrEnded
	}
	o.mu.Unlock()
	o.signal()
}

func (o *Outbox) signal() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// Roomy tells who has much to say whether it may add more. If not, Take reports when it may.
func (o *Outbox) Roomy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = len(o.messages) >= high
	return !o.full
}

// Take takes up to n messages. drained tells that there is room again; over, once nothing is left, why nothing more will come:
// ErrEnded, or fault.Busy of one that ran over.
func (o *Outbox) Take(n int) (messages []*farrierv1.CoordinatorMessage, drained bool, over error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := 0
	n = min(n, len(o.messages))
	for i, m := range o.messages[:n] {
		if size += sizeOf(m); size > mostBytes && i > 0 {
			n = i
			break
		}
	}
	messages = o.messages[:n:n]
	if o.messages = o.messages[n:]; len(o.messages) == 0 {
		o.messages, over = nil, o.over
	}
	if o.full && len(o.messages) < high/2 {
		o.full, drained = false, true
	}
	return messages, drained, over
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
