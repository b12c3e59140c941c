package batch_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/replica/batch"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// future is an entry that lands when a test says so.
type future struct {
	raft.ApplyFuture
	results []command.Result
	landed  chan error
}

func (f *future) Error() error  { return <-f.landed }
func (f *future) Response() any { return f.results }

// log is entries, each of whose commands has a result with its place in the log as token.
type log struct {
	t       *testing.T
	entries chan *future
	n       int
}

func (g *log) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	_, content, err := entry.Open("c", data)
	if err != nil {
		g.t.Error(err)
	}
	f := &future{landed: make(chan error, 1)}
	for range content {
		g.n++
		f.results = append(f.results, command.Result{Token: lock.Token(g.n)})
	}
	g.entries <- f
	return f
}

// start runs a queue over a log, in a synctest bubble.
func start(t *testing.T) (*batch.Queue, *log, *fatal.Latch, func()) {
	latch := fatal.NewLatch(slog.New(slog.DiscardHandler), func() {})
	ended := make(chan struct{})
	q, g := batch.New("c", latch, ended), &log{t: t, entries: make(chan *future, 10000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.Run(ctx, g)
	}()
	return q, g, latch, func() {
		cancel()
		<-done
		close(ended)
	}
}

type outcome struct {
	results []command.Result
	err     error
}

// submit submits as many commands, each of a byte.
func submit(ctx context.Context, q *batch.Queue, n int) <-chan outcome {
	out := make(chan outcome, 1)
	go func() {
		res, err := q.Submit(ctx, entry.Commands, make([]byte, n), n)
		out <- outcome{res, err}
	}()
	return out
}

// TestOneEntryForThoseWhoWait: while one is on its way, the next takes all that come, and each gets its own results.
func TestOneEntryForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, g, _, stop := start(t)
		one := submit(t.Context(), q, 1)
		first := <-g.entries
		var rest []<-chan outcome
		for i := range 50 {
			rest = append(rest, submit(t.Context(), q, i%3))
			synctest.Wait() // they come one after the other
		}
		first.landed <- nil
		if o := <-one; o.err != nil || len(o.results) != 1 || o.results[0].Token != 1 {
			t.Errorf("the first: %+v", o)
		}
		(<-g.entries).landed <- nil
		want := lock.Token(2)
		for i, c := range rest {
			o := <-c
			if o.err != nil || len(o.results) != i%3 {
				t.Fatalf("caller %d: %+v", i, o)
			}
			for _, r := range o.results {
				if r.Token != want {
					t.Errorf("caller %d has the result of command %d, not of %d", i, r.Token, want)
				}
				want++
			}
		}
		if len(g.entries) != 0 {
			t.Errorf("%d entries too many", len(g.entries))
		}
		stop()
	})
}

// TestWhoLeaves: before its entry it takes its proposal along, after that nobody knows.
func TestWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, g, _, stop := start(t)
		ctx, leave := context.WithCancel(t.Context())
		taken := submit(ctx, q, 1)
		first := <-g.entries
		waits := submit(ctx, q, 5)
		synctest.Wait()
		leave()
		if o := <-taken; !fault.Is(o.err, fault.UnknownOutcome) {
			t.Errorf("one whose entry is on its way: %v", o.err)
		}
		if o := <-waits; !fault.Is(o.err, fault.Timeout) {
			t.Errorf("one that waits: %v", o.err)
		}
		last := submit(t.Context(), q, 1)
		synctest.Wait()
		first.landed <- nil
		(<-g.entries).landed <- nil
		if o := <-last; o.err != nil || o.results[0].Token != 2 {
			t.Errorf("what was left is in the log: %+v", o)
		}
		stop()
	})
}

// TestWhatRaftRefuses says whether it was appended, and a member that must stop lets everybody go.
func TestWhatRaftRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, g, latch, stop := start(t)
		for _, refused := range []error{raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress} {
			out := submit(t.Context(), q, 1)
			(<-g.entries).landed <- refused
			if o := <-out; !errors.Is(o.err, refused) {
				t.Errorf("%v: %v", refused, o.err)
			}
		}
		out := submit(t.Context(), q, 1)
		(<-g.entries).landed <- raft.ErrLeadershipLost
		if o := <-out; !fault.Is(o.err, fault.UnknownOutcome) {
			t.Errorf("leadership lost: %v", o.err)
		}
		out = submit(t.Context(), q, 1)
		short := <-g.entries
		short.results = nil // the state machine stopped
		short.landed <- nil
		if o := <-out; !fault.Is(o.err, fault.UnknownOutcome) {
			t.Errorf("no results: %v", o.err)
		}
		out = submit(t.Context(), q, 1)
		hung := <-g.entries
		_ = latch.Fail(errors.New("input/output error"))
		if o := <-out; !fault.Is(o.err, fault.UnknownOutcome) {
			t.Errorf("a member that must stop: %v", o.err)
		}
		hung.landed <- nil
		stop()
	})
}

// TestFullQueue: more than are taken are told so at once.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		q := batch.New("c", fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}), ended) // nobody runs it
		var waits []<-chan outcome
		for range 8192 {
			waits = append(waits, submit(t.Context(), q, 1))
		}
		synctest.Wait()
		if o := <-submit(t.Context(), q, 1); !fault.Is(o.err, fault.Busy) || q.Waiting() != 8192 {
			t.Errorf("%d wait: %v", q.Waiting(), o.err)
		}
		close(ended)
		for _, c := range waits {
			if o := <-c; !fault.Is(o.err, fault.Timeout) {
				t.Fatalf("when the member has stopped: %v", o.err)
			}
		}
	})
}
