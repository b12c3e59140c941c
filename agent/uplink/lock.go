package uplink

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farrier-project/farrier/agent/task"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// maxCalls bounds the calls that wait for an answer.
const maxCalls = 4096

// calls are the lock requests and releases, and the BMC sessions to be recorded, that wait for an answer. They are sent again on each stream of the same
// session; the coordinators answer a repeat as they did the first.
type calls struct {
	out *outbox

	mu   sync.Mutex // guards last and open; taken before the outbox's
	last uint64
	open map[uint64]*call
}

type call struct {
	message *farrierv1.AgentMessage
	stream  uint64                    // on which it was sent last; 0: none
	reply   chan *farrierv1.LockReply // one, ever
	left    bool                      // nobody waits: a lock that is granted is given back
}

func (c *calls) init(out *outbox) { c.out, c.open = out, make(map[uint64]*call) }

// do sends what make returns and waits for the answer.
func (c *calls) do(ctx context.Context, op string, build func(id uint64) *farrierv1.AgentMessage) (*farrierv1.LockReply, error) {
	c.mu.Lock()
	if len(c.open) >= maxCalls {
		c.mu.Unlock()
		return nil, fault.New(fault.Busy, op, "%d calls wait already", maxCalls)
	}
	c.last++
	id := c.last
	k := &call{message: build(id), reply: make(chan *farrierv1.LockReply, 1)}
	c.open[id] = k
	k.stream = c.out.add(k.message)
	c.mu.Unlock()
	select {
	case r := <-k.reply:
		return r, errorOf(r.GetError())
	case <-ctx.Done():
		c.leave(id, k)
		return nil, fault.New(fault.UnknownOutcome, op, "no answer: %w", context.Cause(ctx))
	}
}

// leave forgets a call whose caller is gone. A request for a lock stays: it may have been granted, or be granted later,
// and nobody else would give the lock back while the session lasts.
func (c *calls) leave(id uint64, k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.open[id] == nil: // answered at this very moment
		c.giveBack(k, <-k.reply)
	case k.message.GetLockRequest() != nil:
		k.left = true
	default:
		delete(c.open, id)
	}
}

func (c *calls) answer(r *farrierv1.LockReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.open[r.GetCall()]
	if k == nil {
		return
	}
	delete(c.open, r.GetCall())
	if !k.left {
		k.reply <- r
		return
	}
	c.giveBack(k, r)
}

// giveBack releases the lock that a call got whose caller is gone. Its reply is of interest to nobody, but until it is
// there the release is repeated on each stream.
func (c *calls) giveBack(k *call, r *farrierv1.LockReply) {
	if r.GetToken() == 0 || k.message.GetLockRequest() == nil {
		return
	}
	c.last++
	back := &call{left: true, reply: make(chan *farrierv1.LockReply, 1),
		message: &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRelease{LockRelease: &farrierv1.LockRelease{
			Call: c.last, Node: k.message.GetLockRequest().GetNode(), Token: r.GetToken()}}}}
	c.open[c.last] = back
	back.stream = c.out.add(back.message)
}

// repeat sends what the open stream has not carried yet.
func (c *calls) repeat() {
	now := c.out.number()
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]uint64, 0, len(c.open))
	for id, k := range c.open {
		if k.stream != now {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		c.open[id].stream = c.out.add(c.open[id].message)
	}
}

// failAll answers every open call: the session that asked is over, and so is any lock it may have got.
func (c *calls) failAll(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, k := range c.open {
		delete(c.open, id)
		k.reply <- &farrierv1.LockReply{Call: id, Error: &farrierv1.ErrorDetail{Kind: fault.Expired.String(), Message: why}}
	}
}

// errorOf is the typed error that a detail describes, nil for nil.
func errorOf(d *farrierv1.ErrorDetail) error {
	if d == nil {
		return nil
	}
	e := &fault.Error{Kind: fault.ParseKind(d.GetKind()), Err: errors.New(d.GetMessage()), Help: d.GetHelp()}
	if l := d.GetLock(); l != nil {
		e.Detail = &fault.LockDetail{
			Node: l.GetNode(), Holder: l.GetHolder(), Session: l.GetSession(), Task: l.GetTask(), Purpose: l.GetPurpose(),
			Token: l.GetToken(), SinceUnixNano: l.GetSince().AsTime().UnixNano(), Queued: l.GetQueued(),
		}
	}
	return e
}

// Lock implements task.Locker.
func (u *Uplink) Lock(ctx context.Context, node, name, purpose string, w task.Wait) (uint64, error) {
	r, err := u.calls.do(ctx, "ask for a lock", func(id uint64) *farrierv1.AgentMessage {
		return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRequest{LockRequest: &farrierv1.LockRequest{
			Call: id, Node: node, Task: name, Purpose: purpose,
			Wait: &farrierv1.LockWait{Wait: durationpb.New(w.For), Patient: w.Patient},
		}}}
	})
	if err != nil {
		return 0, err
	}
	if r.GetToken() == 0 {
		return 0, fault.New(fault.Internal, "ask for a lock", "granted without a token")
	}
	return r.GetToken(), nil
}

// Unlock implements task.Locker.
func (u *Uplink) Unlock(ctx context.Context, node string, token uint64) error {
	_, err := u.calls.do(ctx, "release a lock", func(id uint64) *farrierv1.AgentMessage {
		return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_LockRelease{LockRelease: &farrierv1.LockRelease{Call: id, Node: node, Token: token}}}
	})
	return err
}

// Opened implements driver.Sessions: the coordinators keep the URI for the node's next owner.
func (u *Uplink) Opened(ctx context.Context, node, uri string) error {
	const op = "record BMC session"
	_, err := u.calls.do(ctx, op, func(id uint64) *farrierv1.AgentMessage {
		return &farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_BmcSession{BmcSession: &farrierv1.BMCSession{Call: id, Node: node, Uri: uri, Opened: true}}}
	})
	if err != nil { // whatever the reason, nothing was changed: whoever has the right to act may try again
		return fault.New(fault.Unavailable, op, "%w", err)
	}
	return nil
}

// Ended implements driver.Sessions.
func (u *Uplink) Ended(node, uri string) {
	u.out.add(&farrierv1.AgentMessage{Body: &farrierv1.AgentMessage_BmcSession{BmcSession: &farrierv1.BMCSession{Node: node, Uri: uri}}})
}
