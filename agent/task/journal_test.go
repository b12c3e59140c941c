package task

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// TestBrokenJournalStopsEffects: when the intent cannot be written the effect is not begun, and Run ends at once with
// the reason, not at its next tick.
func TestBrokenJournalStopsEffects(t *testing.T) {
	w := newWorld()
	begun, broken, intent := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ex := ExecutorFunc(func(ctx context.Context, x *Exclusive) work.Outcome {
		close(begun)
		<-broken
		intent <- x.Intend(ctx)
		<-ctx.Done() // the attempt is cut short
		return work.Failed(x.Order(), context.Cause(ctx))
	})
	m, j := start(t, w, t.TempDir(), Config{Workers: 4, Executors: map[step.Executor]Executor{step.BMC: ex}})
	ended := make(chan error, 1)
	go func() { ended <- m.Run(t.Context()) }()
	if err := m.Handle(work.Ordered{Order: order("n1", 0, 5, step.BMC)}); err != nil {
		t.Fatal(err)
	}
	<-begun
	j.Close() // every write fails from here on
	close(broken)
	if err := <-intent; err == nil {
		t.Error("an effect was begun whose intent is not on disk")
	}
	if err := <-ended; err == nil || fault.Is(err, fault.Aborted) {
		t.Errorf("Run ended with %v", err)
	}
	if err := m.Handle(work.Ordered{Order: order("n2", 0, 6, step.BMC)}); err == nil {
		t.Error("an order was taken after the journal's failure")
	}
	select {
	case o := <-w.outcomes:
		t.Errorf("reported though it is not recorded: %+v", o)
	default:
	}
}

// TestBrokenJournalIsNoticedWithoutWork: a write that nobody waited for has failed; the next tick finds it.
func TestBrokenJournalIsNoticedWithoutWork(t *testing.T) {
	w := newWorld()
	m, j := start(t, w, t.TempDir(), Config{Workers: 4})
	j.Close()
	if err := j.Put(journal.Entry{Table: journal.Leases, Key: "a", Value: []byte("x")}).Wait(); err == nil {
		t.Fatal("written to a closed journal")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Run(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("Run ended with %v", err)
	}
}

// TestOutcomeLargerThanARecord: it becomes a failure that says so, and the journal goes on.
func TestOutcomeLargerThanARecord(t *testing.T) {
	w := newWorld()
	m, j := start(t, w, t.TempDir(), Config{Workers: 4})
	defer j.Close()
	o := order("n1", 0, 5, step.Ramdisk)
	o.BootID = "b"
	if err := m.Handle(work.Ordered{Order: o}); err != nil {
		t.Fatal(err)
	}
	out := work.Done(o, map[string]string{"wide": strings.Repeat("<", journal.MaxValue/6)})
	if err := m.Handle(work.Reported{Outcome: out}); err != nil {
		t.Fatal(err)
	}
	if got := <-w.outcomes; got.OK || got.Kind != fault.TooLarge || got.BootID != "b" || got.Ref != o.Ref {
		t.Errorf("reported %+v", got)
	}
	if err := j.Put(journal.Entry{Table: journal.Runs, Key: "other", Value: []byte("x")}).Wait(); err != nil {
		t.Errorf("a later write of another node: %v", err)
	}
}
