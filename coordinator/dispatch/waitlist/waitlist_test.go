package waitlist

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/proposer"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

const machine = node.ID("00000000-0000-4000-8000-000000000001")

// model is a replica of one member: real state, no log.
type model struct {
	t  *testing.T
	mu sync.Mutex // guards the fields below
	st *apply.Applier
	at uint64
	// unknown is how many proposals are applied and answered with an error all the same.
	unknown int

	view atomic.Pointer[state.View]
}

func (m *model) Propose(_ context.Context, cmds ...command.Command) ([]command.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at++
	results := make([]command.Result, len(cmds))
	for i, c := range cmds {
		results[i] = m.st.Apply(m.at, c)
	}
	m.view.Store(m.st.View())
	if m.unknown > 0 {
		m.unknown--
		return nil, fault.New(fault.UnknownOutcome, "propose", "the answer was lost")
	}
	return results, nil
}

func (m *model) View() *state.View { return m.view.Load() }

func (m *model) must(b command.Body) command.Result {
	m.t.Helper()
	res, err := m.Propose(m.t.Context(), stamped(b))
	if err == nil {
		err = res[0].Err
	}
	if err != nil {
		m.t.Fatalf("%T: %v", b, err)
	}
	return res[0]
}

func stamped(b command.Body) command.Command {
	return command.Command{Header: command.Header{Cluster: "test", Level: 1, Actor: "operator alice"}, Body: b}
}

func ask(task string) command.AcquireLock {
	return command.AcquireLock{Node: machine, Session: "s", Holder: "agent a", Task: task, Purpose: "test"}
}

// newList is a List that is served, in the bubble of a test, over a state with one node.
func newList(t *testing.T) (*List, *model) {
	m := &model{t: t, st: apply.New()}
	m.must(command.InitCluster{ClusterID: "test", Settings: command.DefaultSettings()})
	m.must(command.OpenSession{Session: "s", Agent: "a", Group: "g", Drivers: []string{"redfish"}, Weight: 1, Journal: "j", Incarnation: 1, Level: 1})
	m.must(command.CreateNode{Node: node.Pack(&node.Node{ID: machine, Name: "web-1", Driver: "redfish", Group: "g"})})
	clk := clock.NewMonotonic()
	q := New(proposer.New("c1", m, clk), clk)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- q.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-over
	})
	return q, m
}

// queue lets a caller wait in a goroutine of its own.
func queue(ctx context.Context, q *List, task string, wait time.Duration) chan answered {
	got := make(chan answered, 1)
	go func() {
		res, err := q.Propose(ctx, stamped(ask(task)), wait)
		got <- answered{res, err}
	}()
	synctest.Wait()
	return got
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := newList(t)
		token := m.must(ask("first")).Token
		callers := []chan answered{queue(t.Context(), q, "second", -1), queue(t.Context(), q, "third", time.Minute), queue(t.Context(), q, "fourth", -1)}
		if q.Len(machine) != 3 || q.Total() != 3 {
			t.Fatalf("%d wait, %d in all", q.Len(machine), q.Total())
		}
		for i, c := range callers {
			m.must(command.ReleaseLock{Node: machine, Token: token})
			q.Look(machine)
			a := <-c
			if a.err != nil || a.res.Token <= token {
				t.Fatalf("caller %d: token %d after %d, %v", i, a.res.Token, token, a.err)
			}
			token = a.res.Token
		}
	})
}

func TestWaitThatEndsIsToldWhoHasTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := newList(t)
		token := m.must(ask("first")).Token
		long := queue(t.Context(), q, "long", -1)
		start := time.Now()
		short := <-queue(t.Context(), q, "short", time.Second)
		if d := detailOf(short.err); d == nil || lock.Token(d.Token) != token || d.Holder != "agent a" || d.Task != "first" || d.Queued != 1 {
			t.Errorf("told %v, %+v", short.err, d)
		}
		if waited := time.Since(start); waited < time.Second || waited > time.Second+2*expiry {
			t.Errorf("waited %v", waited)
		}
		if _, err := q.Propose(t.Context(), stamped(ask("hasty")), 0); detailOf(err) == nil {
			t.Errorf("who does not wait went before who does: %v", err)
		}
		m.must(command.ReleaseLock{Node: machine, Token: token}) // nobody tells of it
		if a := <-long; a.err != nil {
			t.Errorf("the one with patience got %v", a.err)
		}
	})
}

func TestWhoLeftIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := newList(t)
		token := m.must(ask("first")).Token
		ctx, leave := context.WithCancel(t.Context())
		gone, next := queue(ctx, q, "gone", -1), queue(t.Context(), q, "next", -1)
		stream := new(int)
		q.Ask(Waiter{Node: machine, Actor: "agent a", Body: ask("cut"), From: stream, Reply: func(command.Result, error) { t.Error("a stream that is over was answered") }}, -1)
		leave()
		q.Leave(stream)
		if a := <-gone; !fault.Is(a.err, fault.Locked) {
			t.Errorf("who left was told %v", a.err)
		}
		m.must(command.ReleaseLock{Node: machine, Token: token})
		if a := <-next; a.err != nil {
			t.Errorf("the next got %v", a.err)
		}
		if q.Total() != 0 {
			t.Errorf("%d still wait", q.Total())
		}
	})
}

func TestLostLeadershipAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := newList(t)
		m.must(ask("first"))
		c := queue(t.Context(), q, "second", -1)
		q.Fail(fault.New(fault.NotLeader, "wait for the lock", "another leads"))
		if a := <-c; !fault.Is(a.err, fault.NotLeader) {
			t.Errorf("told %v", a.err)
		}
	})
}

// TestLockWhoseAnswerWasLostWasWaitedForForEver: the request of an agent was granted, the answer of the log was lost, and its own
// lock was in its way.
func TestLockWhoseAnswerWasLostWasWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, m := newList(t)
		token := m.must(ask("first")).Token
		got := make(chan answered, 1)
		q.Ask(Waiter{Node: machine, Actor: "agent a", Body: ask("second"), From: new(int), Reply: func(res command.Result, err error) { got <- answered{res, err} }}, -1)
		synctest.Wait()
		m.must(command.ReleaseLock{Node: machine, Token: token})
		m.mu.Lock()
		m.unknown = 1
		m.mu.Unlock()
		q.Look(machine)
		a := <-got
		n, _ := m.View().Node(machine)
		if a.err != nil || a.res.Token != n.Lock.Token || n.Lock.Task != "second" {
			t.Errorf("got %d, %v; the lock is %+v", a.res.Token, a.err, n.Lock)
		}
		again := make(chan answered, 1) // asked again on another stream
		_, err := q.Propose(t.Context(), stamped(ask("third")), 0)
		held := detailOf(err)
		q.Ask(Waiter{Node: machine, Actor: "agent a", Body: ask("second"), Held: fault.New(fault.Locked, "", "held").WithDetail(held),
			Reply: func(res command.Result, err error) { again <- answered{res, err} }}, 0)
		if b := <-again; b.err != nil || b.res.Token != a.res.Token {
			t.Errorf("the holder was told %d, %v", b.res.Token, b.err)
		}
	})
}
