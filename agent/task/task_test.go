package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// TestReleaseExactlyOnce ends an exclusive task in every way there is: the lock falls once, and only once.
func TestReleaseExactlyOnce(t *testing.T) {
	boom := errors.New("boom")
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, m *Manager, x *Exclusive)
		want int // calls of Unlock
	}{
		{"release", func(t *testing.T, m *Manager, x *Exclusive) { check(t, x.Release(nil), nil) }, 1},
		{"release twice", func(t *testing.T, m *Manager, x *Exclusive) {
			check(t, x.Release(nil), nil)
			check(t, x.Release(boom), nil)
		}, 1},
		{"body failed: nothing is spawned", func(t *testing.T, m *Manager, x *Exclusive) {
			x.SpawnAfter(func(context.Context) error { t.Error("spawned after a failed body"); return nil })
			check(t, x.Release(boom), nil)
		}, 1},
		{"spawned work ends", func(t *testing.T, m *Manager, x *Exclusive) {
			x.SpawnAfter(func(context.Context) error { return nil })
			check(t, x.Release(nil), nil)
			m.pool.wait()
		}, 1},
		{"spawned work fails", func(t *testing.T, m *Manager, x *Exclusive) {
			x.SetSpawnErrorHook(func(error) { t.Error("hook called for what the work returned") })
			x.SpawnAfter(func(context.Context) error { return boom })
			check(t, x.Release(nil), nil)
			m.pool.wait()
		}, 1},
		{"spawned work panics", func(t *testing.T, m *Manager, x *Exclusive) {
			x.SpawnAfter(func(context.Context) error { panic("boom") })
			check(t, x.Release(nil), nil)
			m.pool.wait()
		}, 1},
		{"no worker: the hook, then the lock", func(t *testing.T, m *Manager, x *Exclusive) {
			m.pool.spawned = m.pool.size
			var got error
			x.SetSpawnErrorHook(func(err error) { got = err; panic("in the hook") })
			x.SpawnAfter(func(context.Context) error { t.Error("spawned without a worker"); return nil })
			check(t, x.Release(nil), fault.Busy)
			check(t, got, fault.Busy)
			check(t, x.Release(nil), fault.Busy)
		}, 1},
		{"downgrade", func(t *testing.T, m *Manager, x *Exclusive) {
			s, err := x.Downgrade(t.Context())
			check(t, err, nil)
			if !s.Shared() || x.Context().Err() == nil {
				t.Error("downgrade left the exclusive task alive")
			}
			check(t, x.Release(nil), nil)
		}, 1},
		{"the session ends: the lock fell with it", func(t *testing.T, m *Manager, x *Exclusive) {
			m.Handle(work.Ended{Reason: "expired"})
			check(t, context.Cause(x.Context()), fault.Expired)
			check(t, x.Release(nil), nil)
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			m, j := start(t, w, t.TempDir(), Config{Workers: 4})
			defer j.Close()
			x, err := m.Acquire(t.Context(), "n1", Options{Purpose: "test"})
			if err != nil {
				t.Fatal(err)
			}
			tc.end(t, m, x)
			if w.unlocks != tc.want {
				t.Errorf("unlocked %d times, want %d", w.unlocks, tc.want)
			}
			if tc.want == 1 && !w.free("n1") {
				t.Error("the lock is held still")
			}
			if len(m.held) != 0 {
				t.Error("the task is kept")
			}
		})
	}
}

// check compares err with a kind, or nil.
func check(t *testing.T, err error, want any) {
	t.Helper()
	if k, ok := want.(fault.Kind); ok && fault.Is(err, k) || want == nil && err == nil {
		return
	}
	t.Errorf("error %v, want %v", err, want)
}

func TestLockIsHeldUntilSpawnedWorkEnds(t *testing.T) {
	w := newWorld()
	m, j := start(t, w, t.TempDir(), Config{Workers: 4})
	defer j.Close()
	x, err := m.Acquire(t.Context(), "n1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if x.Purpose() != "unspecified action" || x.Token() != 101 || m.work.Token("n1") != 101 {
		t.Errorf("purpose %q, token %d", x.Purpose(), x.Token())
	}
	begun, end := make(chan struct{}), make(chan struct{})
	x.SpawnAfter(func(context.Context) error { close(begun); <-end; return nil })
	check(t, x.Release(nil), nil)
	<-begun
	_, err = m.Acquire(t.Context(), "n1", Options{})
	check(t, err, fault.Locked)
	close(end)
	m.pool.wait()
	if !w.free("n1") {
		t.Error("the lock is held after the work has ended")
	}
}

func TestSharedTaskOffersNothingThatChanges(t *testing.T) {
	w := newWorld()
	m, j := start(t, w, t.TempDir(), Config{})
	defer j.Close()
	m.Assign(&Node{ID: "n1", Driver: "fake-hardware", Epoch: 1, Ports: []Port{{Address: "52:54:00:00:00:01"}}, ProvisionState: "active"})
	s, err := m.AcquireShared(t.Context(), "n1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w.next != 100 || !s.Shared() || len(s.Ports()) != 1 {
		t.Errorf("a shared task took lock %d, ports %v", w.next, s.Ports())
	}
	m.Assign(&Node{ID: "n1", Driver: "fake-hardware", Epoch: 1, ProvisionState: "deleting"})
	if s.Node().ProvisionState != "active" {
		t.Error("the shared task's version of the node has moved")
	}
	err = s.Read(t.Context(), func(ctx context.Context, r Reader) error {
		if _, ok := r.(bmc.Power); ok {
			t.Error("a shared task's reader is a bmc.Power")
		}
		if _, ok := r.(bmc.BootDevice); ok {
			t.Error("a shared task's reader is a bmc.BootDevice")
		}
		p, err := r.Power(ctx)
		if p != bmc.PowerOff {
			t.Errorf("power %v", p)
		}
		return err
	})
	check(t, err, nil)
	for i := range reflect.TypeFor[*Shared]().NumMethod() {
		switch name := reflect.TypeFor[*Shared]().Method(i).Name; name {
		case "Context", "Node", "Driver", "Ports", "Shared", "Read", "Glance", "Upgrade", "Release":
		default:
			t.Errorf("a shared task offers %s: is it certain that it changes nothing?", name)
		}
	}
	x, err := s.Upgrade("now for good")
	check(t, err, nil)
	if x.Node().ProvisionState != "deleting" || x.Purpose() != "now for good" || s.Context().Err() == nil {
		t.Errorf("upgrade: node %q, purpose %q, shared task alive %v", x.Node().ProvisionState, x.Purpose(), s.Context().Err() == nil)
	}
	x.Upgrade("renamed")
	if x.Purpose() != "renamed" {
		t.Error("upgrade of an exclusive task does not change the purpose")
	}
	check(t, x.Release(nil), nil)
	_, err = m.AcquireShared(t.Context(), "n9", Options{})
	check(t, err, fault.NotFound)
}

// table is a Lifecycle that knows two moves.
type table struct{ fired []Transition }

func (l *table) Fire(_ context.Context, tr Transition) (*Node, error) {
	if tr.Event != "resume" && tr.Event != "done" {
		return nil, fault.New(fault.IllegalState, "fire", "no row for %s", tr.Event)
	}
	l.fired = append(l.fired, tr)
	return &Node{ID: tr.Node, ProvisionState: "cleaning", TargetProvisionState: tr.Target}, nil
}

func TestProcessEvent(t *testing.T) {
	w, l := newWorld(), &table{}
	m, j := start(t, w, t.TempDir(), Config{Lifecycle: l, Workers: 1})
	defer j.Close()
	x, err := m.Acquire(t.Context(), "n1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := x.Node()
	check(t, x.ProcessEvent(t.Context(), Event{Name: "fly"}), fault.IllegalState)
	if x.Node() != before {
		t.Error("an illegal event changed the node")
	}
	x.node = &Node{ID: "n1", ProvisionState: "clean wait", TargetProvisionState: "manageable"}
	check(t, x.ResumeCleaning(t.Context()), nil)
	if l.fired[0].Target != "manageable" || x.Node().ProvisionState != "cleaning" {
		t.Errorf("resume cleaning fired %+v and left %+v", l.fired[0], x.Node())
	}
	x.node = &Node{ID: "n1", ProvisionState: "clean wait", TargetProvisionState: "available"}
	check(t, x.ResumeCleaning(t.Context()), nil)
	if l.fired[1].Target != "" {
		t.Errorf("resume of an automated clean overrides the target: %+v", l.fired[1])
	}
	var hooked *Node
	was := x.Node()
	check(t, x.ProcessEvent(t.Context(), Event{
		Name: "done", LastError: "none", Callback: func(context.Context) error { return nil },
		OnSpawnError: func(err error, before *Node) { hooked = before },
	}), nil)
	if tr := l.fired[2]; !tr.HasCallback || tr.LastError != "none" || tr.Token != x.Token() {
		t.Errorf("fired %+v", tr)
	}
	m.pool.spawned = m.pool.size
	check(t, x.Release(nil), fault.Busy)
	if hooked != was {
		t.Errorf("the hook got %+v, want the node before the event", hooked)
	}
	y, err := m.Acquire(t.Context(), "n2", Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.Lifecycle = nil
	check(t, y.ProcessEvent(t.Context(), Event{Name: "done"}), fault.Unsupported)
	check(t, y.Release(nil), nil)
}

// TestEffectsWaitForTheRightToAct plays a step whose effect may not begin yet: lapsed lease, newer token.
func TestEffectsWaitForTheRightToAct(t *testing.T) {
	w := newWorld()
	entered, done := make(chan struct{}), make(chan error, 1)
	ex := ExecutorFunc(func(ctx context.Context, x *Exclusive) work.Outcome {
		err := x.Turn(ctx, func(ctx context.Context, c bmc.Client, do Do) error {
			w.set(5 * time.Second) // past the lease
			close(entered)
			return do(ctx, time.Second, func(ctx context.Context) error { return c.SetPower(ctx, bmc.PowerOn) })
		})
		done <- err
		if err != nil {
			return work.Failed(x.Order(), err)
		}
		return work.Done(x.Order(), nil)
	})
	m, j := start(t, w, t.TempDir(), Config{Executors: map[step.Executor]Executor{step.BMC: ex}})
	defer j.Close()
	m.Handle(work.Renewing{Seq: 1})
	m.Handle(work.Ordered{Order: order("n1", 0, 7, step.BMC)})
	<-entered
	m.Assign(&Node{ID: "n1", Epoch: 1, Token: 9}) // somebody broke the lock: token 7 is old
	select {
	case err := <-done:
		t.Fatalf("the effect began without the right to: %v", err)
	default:
	}
	if w.machines.Starts("n1") != 0 {
		t.Fatal("the machine was started without the right to")
	}
	w.set(1500 * time.Millisecond) // as if the renewal had been sent and acknowledged in time
	m.Handle(work.Renewing{Seq: 2}, work.Renewed{Seq: 2})
	m.Handle(work.Ordered{Order: order("n1", 0, 9, step.BMC)}) // the same attempt under the new token
	check(t, <-done, nil)
	out := <-w.outcomes
	if !out.OK || out.Token != 9 || w.machines.Starts("n1") != 1 || w.fences != 1 {
		t.Errorf("outcome %+v, starts %d, fences %d", out, w.machines.Starts("n1"), w.fences)
	}
	m.pool.wait()
}

// TestJournalAnswersAfterAKill runs a step, forgets the manager without closing it, and starts on the same
// directory: the outcome is answered from the journal, an older token is refused, an open intent is resumed.
func TestJournalAnswersAfterAKill(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	hang := make(chan struct{})
	runs := make(chan work.Order, 10)
	ex := ExecutorFunc(func(ctx context.Context, x *Exclusive) work.Outcome {
		runs <- x.Order()
		if err := x.Intend(ctx); err != nil {
			return work.Failed(x.Order(), err)
		}
		if x.Node().ID == "n2" && !x.Order().Resumed {
			close(hang)
			<-ctx.Done()
			return work.Failed(x.Order(), ctx.Err())
		}
		return work.Done(x.Order(), map[string]string{"power_state": "power on"})
	})
	c := Config{Executors: map[step.Executor]Executor{step.BMC: ex}}
	m, j := start(t, w, dir, c)
	m.Handle(work.Ordered{Order: order("n1", 0, 7, step.BMC)}, work.Ordered{Order: order("n2", 0, 8, step.BMC)})
	first := <-w.outcomes
	<-hang
	// The journal's file as it is now is what a kill would leave: every wait above has been answered.
	var left []string
	check(t, j.Each(1, func(node string, v []byte) error {
		var r work.Record
		left = append(left, fmt.Sprintf("%s intents", node))
		return json.Unmarshal(v, &r)
	}), nil)
	if strings.Join(left, ",") != "n1 intents,n2 intents" {
		t.Fatalf("journal holds %v", left)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_ = m.Run(ctx) // our own end: what is cut short is not reported
	check(t, j.Close(), nil)

	w2 := newWorld()
	m2, j2 := start(t, w2, dir, c)
	defer j2.Close()
	if h := m2.Holding(); len(h.Unconfirmed) != 1 || h.Unconfirmed[0].Facts["power_state"] != "power on" {
		t.Fatalf("after the restart unconfirmed: %+v", h.Unconfirmed)
	}
	<-runs
	<-runs
	m2.Handle(work.Ordered{Order: order("n1", 0, 7, step.BMC)})
	if again := <-w2.outcomes; again.Ref != first.Ref || !again.OK {
		t.Errorf("answered %+v, want %+v", again, first)
	}
	m2.Handle(work.Ordered{Order: order("n1", 1, 6, step.BMC)}) // stale: refused
	m2.Handle(work.Ordered{Order: order("n2", 0, 9, step.BMC)})
	if o := <-runs; o.Node != "n2" || !o.Resumed || o.Token != 9 {
		t.Errorf("ran %+v, want n2's attempt, resumed", o)
	}
	if out := <-w2.outcomes; out.Node != "n2" || !out.OK {
		t.Errorf("outcome %+v", out)
	}
	m2.pool.wait()
	select {
	case o := <-runs:
		t.Errorf("a stale order ran: %+v", o)
	case o := <-w.outcomes:
		t.Errorf("a step cut short by the agent's own end was reported: %+v", o)
	default:
	}
}

func TestUnassignedNodeIsTornDown(t *testing.T) {
	w := newWorld()
	m, j := start(t, w, t.TempDir(), Config{})
	defer j.Close()
	w.told = nil
	m.Handle(work.Unassigned{Node: "n1", Epoch: 1})
	if got := strings.Join(w.told, "; "); got != "forgotten n1; torn down n1 1" {
		t.Errorf("told %q", got)
	}
	if _, ok := m.Node("n1"); ok {
		t.Error("the node is kept")
	}
}

func TestPanicInAStepIsItsFailure(t *testing.T) {
	w := newWorld()
	ex := ExecutorFunc(func(context.Context, *Exclusive) work.Outcome { panic("boom") })
	m, j := start(t, w, t.TempDir(), Config{Executors: map[step.Executor]Executor{step.BMC: ex}})
	defer j.Close()
	m.Handle(work.Ordered{Order: order("n1", 0, 1, step.BMC)})
	if out := <-w.outcomes; out.OK || out.Kind != fault.Internal {
		t.Errorf("outcome %+v", out)
	}
	m.Handle(work.Ordered{Order: order("n2", 0, 1, step.Agent)})
	if out := <-w.outcomes; out.OK || out.Kind != fault.Unsupported {
		t.Errorf("outcome without an executor: %+v", out)
	}
	m.pool.wait()
}

// TestSpawnedWorkOutlivesItsCaller: what a request spawned was cancelled when the request returned, and the Manager's
// end did not cancel it.
func TestSpawnedWorkOutlivesItsCaller(t *testing.T) {
	w := newWorld()
	m, j := start(t, w, t.TempDir(), Config{Workers: 4})
	defer j.Close()
	request, returned := context.WithCancel(t.Context())
	x, err := m.Acquire(request, "n1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	begun, after, ended := make(chan struct{}), make(chan error), make(chan error, 1)
	x.SpawnAfter(func(ctx context.Context) error {
		<-begun
		after <- ctx.Err()
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil
	})
	check(t, x.Release(nil), nil)
	returned()
	close(begun)
	if err := <-after; err != nil {
		t.Errorf("the caller's return ended it: %v", err)
	}
	run, stop := context.WithCancel(t.Context())
	stop()
	_ = m.Run(run) // waits for it
	check(t, <-ended, fault.Aborted)
	if !w.free("n1") {
		t.Error("the lock is held still")
	}
}

// TestResting: the agent looks at a node of its own accord only if nothing is done to it here, and while its session lives.
func TestResting(t *testing.T) {
	w := newWorld()
	begun, end := make(chan struct{}), make(chan struct{})
	ex := ExecutorFunc(func(_ context.Context, x *Exclusive) work.Outcome {
		close(begun)
		<-end
		return work.Done(x.Order(), nil)
	})
	m, j := start(t, w, t.TempDir(), Config{Executors: map[step.Executor]Executor{step.BMC: ex}, Workers: 4})
	defer j.Close()
	is := func(want bool, when string) {
		t.Helper()
		if m.Resting("n1") != want {
			t.Errorf("%s: resting is %v", when, !want)
		}
	}
	is(true, "at first")
	x, err := m.Acquire(t.Context(), "n1", Options{})
	check(t, err, nil)
	is(false, "under a lock")
	check(t, x.Release(nil), nil)
	is(true, "after it")
	m.Handle(work.Ordered{Order: order("n1", 0, 200, step.BMC)})
	<-begun
	is(false, "while an order runs")
	close(end)
	<-w.outcomes
	m.pool.wait()
	is(true, "after its outcome")
	w.set(time.Minute)
	is(false, "when the lease has lapsed")
	if m.Resting("n9") {
		t.Error("another agent's node rests here")
	}
}

func TestParseWatch(t *testing.T) {
	for text, want := range map[string]Watch{"": WatchNone, "read": WatchPower, "recover": WatchRecovery, "of a newer version": WatchNone} {
		if got := ParseWatch(text); got != want {
			t.Errorf("%q is %v", text, got)
		}
	}
}
