package dispatch

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/waitlist"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

var (
	patient = &farrierv1.LockWait{Patient: true}
	noWait  = &farrierv1.LockWait{Wait: durationpb.New(0)}
)

func TestLockAndRelease(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait))
	got := a.reply(1)
	if got.Error != nil || got.Token == 0 {
		t.Fatalf("reply %v", got)
	}
	if l := r.get(id).Lock; l.Holder != "agent a" || l.Task != "t1#1" || uint64(l.Token) != got.Token {
		t.Errorf("lock %+v", l)
	}
	a.send(lockMessage(1, id, "t1", noWait)) // asked again, as after a lost reply
	if again := a.reply(1); again.Error != nil || again.Token != got.Token {
		t.Errorf("the holder asked again and was told %v", again)
	}
	a.send(lockMessage(3, id, "t1", noWait))
	if other := a.reply(3); other.Error.GetKind() != "locked" || other.Error.Lock.GetTask() != "t1#1" || other.Error.Lock.Token != got.Token {
		t.Errorf("another task was told %v", other)
	}
	a.send(release(4, id, got.Token-1))
	if old := a.reply(4); old.Error == nil {
		t.Error("an old token released the lock")
	}
	a.send(release(5, id, got.Token))
	if done := a.reply(5); done.Error != nil || r.get(id).Lock.Held() {
		t.Errorf("released: %v, lock %+v", done, r.get(id).Lock)
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait))
	token := a.reply(1).Token
	a.send(lockMessage(2, id, "t2", patient), lockMessage(3, id, "t3", patient))
	a.send(lockMessage(4, id, "t4", patient))
	a.barrier()
	if got := r.d.Queued(id); got != 3 {
		t.Fatalf("%d callers wait", got)
	}
	var order []uint64
	for call := uint64(2); call <= 4; call++ {
		a.send(release(call+10, id, token))
		m := a.await("grant", func(m *farrierv1.CoordinatorMessage) bool {
			return m.GetLockReply() != nil && m.GetLockReply().Token != 0
		})
		order = append(order, m.GetLockReply().Call)
		if m.GetLockReply().Token <= token {
			t.Errorf("token %d does not rise above %d", m.GetLockReply().Token, token)
		}
		token = m.GetLockReply().Token
	}
	for i, call := range order {
		if call != uint64(i+2) {
			t.Fatalf("served in the order %v", order)
		}
	}
}

// answered is what a caller of ProposeQueued gets.
type answered struct {
	res command.Result
	err error
}

// lockDetail is what a refusal tells of the lock, or nil.
func lockDetail(err error) *fault.LockDetail {
	var e *fault.Error
	if !errors.As(err, &e) {
		return nil
	}
	d, _ := e.Detail.(*fault.LockDetail)
	return d
}

// queued waits in the queue as a caller of the API would.
type queued struct {
	leave context.CancelFunc
	got   chan answered
}

func (r *rig) queue(id node.ID, task string, wait time.Duration, want int) queued {
	r.t.Helper()
	ctx, leave := context.WithCancel(r.ctx)
	q := queued{leave: leave, got: make(chan answered, 1)}
	cmd := r.lockCommand(id, task)
	go func() {
		res, err := r.d.ProposeQueued(ctx, cmd, wait)
		q.got <- answered{res, err}
	}()
	r.until(func() bool { return r.d.Queued(id) == want })
	return q
}

func (q queued) answer(t *testing.T) answered {
	t.Helper()
	select {
	case a := <-q.got:
		return a
	case <-time.After(patience):
		t.Fatal("the caller still waits")
		return answered{}
	}
}

func TestCallerWhoLeftIsSkipped(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait))
	token := a.reply(1).Token
	first, second := r.queue(id, "first", -1, 1), r.queue(id, "second", -1, 2)
	first.leave()
	if got := first.answer(t); !fault.Is(got.err, fault.Locked) {
		t.Errorf("the caller who left was told %v", got.err)
	}
	a.send(release(2, id, token))
	if got := second.answer(t); got.err != nil || got.res.Token <= lock.Token(token) {
		t.Errorf("the second got %v, %v", got.res.Token, got.err)
	}
	if l := r.get(id).Lock; l.Task != "second" {
		t.Errorf("the lock is %+v", l)
	}
}

func TestStreamThatEndsLeavesTheQueue(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	b := r.agent("b").connect()
	a.send(lockMessage(1, id, "t1", noWait))
	token := a.reply(1).Token
	b.send(lockMessage(1, id, "b1", patient))
	b.barrier()
	last := r.queue(id, "last", -1, 2)
	b.cut()
	r.until(func() bool { return r.d.Queued(id) == 1 })
	a.send(release(2, id, token))
	if got := last.answer(t); got.err != nil {
		t.Errorf("the last got %v", got.err)
	}
}

func TestWaitEnds(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait))
	token := a.reply(1).Token
	a.send(lockMessage(2, id, "t2", nil)) // 3 s
	a.barrier()
	long := r.queue(id, "long", time.Minute, 2)
	short := r.queue(id, "short", time.Second, 3)
	r.clock.at.Add(int64(time.Second))
	if got := short.answer(t); !fault.Is(got.err, fault.Locked) || lockDetail(got.err).Token != token || lockDetail(got.err).Queued != 2 {
		t.Errorf("after 1 s: %v, %+v", got.err, lockDetail(got.err))
	}
	r.clock.at.Add(int64(2 * time.Second))
	if got := a.reply(2); got.Error.GetKind() != "locked" || got.Error.Lock.GetHolder() != "agent a" {
		t.Errorf("after 3 s: %v", got)
	}
	a.send(release(3, id, token))
	if got := long.answer(t); got.err != nil {
		t.Errorf("the one with patience got %v", got.err)
	}
}

// Who does not wait never goes before those who do.
func TestNoWaitDoesNotOvertake(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait), lockMessage(2, id, "t2", patient))
	token := a.reply(1).Token
	a.barrier()
	_, err := r.d.ProposeQueued(r.ctx, r.lockCommand(id, "hasty"), 0)
	if d := lockDetail(err); d == nil || d.Queued != 1 || d.Token != token {
		t.Errorf("refused with %v, %+v", err, d)
	}
	a.send(lockMessage(3, id, "t3", noWait))
	if got := a.reply(3); got.Error.GetKind() != "locked" {
		t.Errorf("overtook: %v", got)
	}
	a.send(release(4, id, token))
	if got := a.reply(2); got.Error != nil {
		t.Errorf("the one in the queue got %v", got)
	}
}

// A change that takes, uses and releases the lock in one entry waits its turn too.
func TestChangesWaitTheirTurn(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait))
	token := a.reply(1).Token
	got := make(chan error, 3)
	for i := range 3 {
		go func() {
			_, err := r.d.ProposeQueued(r.ctx, r.command(command.CreatePort{Port: node.Port{
				ID: "22222222-0000-4000-8000-00000000000" + string(rune('0'+i)), Node: id, Address: "52:54:00:01:00:0" + string(rune('0'+i))}}), -1)
			got <- err
		}()
	}
	r.until(func() bool { return r.d.Queued(id) == 3 })
	a.send(release(2, id, token))
	for range 3 {
		select {
		case err := <-got:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("a change still waits")
		}
	}
	if n := len(r.model.View().Ports(id)); n != 4 {
		t.Errorf("%d ports", n)
	}
}

// A batch that the replica finds too large, or meets while it is busy, is answered all the same.
func TestBatchesFitTheReplica(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	var batch []*farrierv1.AgentMessage
	for i := range 20 {
		batch = append(batch, lockMessage(uint64(i)+1, r.node(i), "t", noWait))
	}
	r.model.mu.Lock()
	r.model.most, r.model.busy = 3, 2
	r.model.mu.Unlock()
	a.send(batch...)
	for i := range 20 {
		if got := a.reply(uint64(i) + 1); got.Error != nil || got.Token == 0 {
			t.Errorf("call %d: %v", i+1, got)
		}
	}
}

func TestLostLeadershipFailsTheQueue(t *testing.T) {
	r := newRig(t)
	a := r.agent("a").connect()
	id := r.node(1)
	a.send(lockMessage(1, id, "t1", noWait))
	a.reply(1)
	q := r.queue(id, "q", -1, 1)
	r.model.lead(0)
	if got := q.answer(t); !fault.Is(got.err, fault.NotLeader) {
		t.Errorf("told %v", got.err)
	}
}

func TestWaitOf(t *testing.T) {
	for _, c := range []struct {
		wait *farrierv1.LockWait
		want time.Duration
	}{
		{nil, waitlist.DefaultWait}, {&farrierv1.LockWait{}, waitlist.DefaultWait}, {noWait, 0}, {patient, -1},
		{&farrierv1.LockWait{Wait: durationpb.New(time.Second)}, time.Second},
		{&farrierv1.LockWait{Wait: durationpb.New(-time.Second)}, 0},
	} {
		if got := waitOf(c.wait); got != c.want {
			t.Errorf("%v: %v, want %v", c.wait, got, c.want)
		}
	}
}
