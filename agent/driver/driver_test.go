package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/bmc/fake"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// rig is a factory whose clients count, fence and close.
type rig struct {
	fake   *fake.Driver
	opened int
	closed []string
	stuck  bool       // Close returns when its context ends
	mu     sync.Mutex // guards closed and ended
	fences [][]string // previous, of each call
	noted  error      // what Opened is to answer

	recorded int      // calls of Opened
	ended    []string // node and URI of each call of Ended
}

func (r *rig) Open(t bmc.Target) (bmc.Client, error) {
	c, err := r.fake.Open(t)
	r.opened++
	return &rigged{c, r, t.Node}, err
}

type rigged struct {
	bmc.Client
	rig  *rig
	node string
}

func (c *rigged) Fence(ctx context.Context, previous []string, record func(context.Context, string) error) (bool, error) {
	if err := record(ctx, "/sessions/"+c.node); err != nil {
		return false, err
	}
	c.rig.fences = append(c.rig.fences, previous)
	return true, nil
}

// Opened and Ended make the rig the place where sessions are recorded.
func (r *rig) Opened(context.Context, string, string) error {
	r.recorded++
	return r.noted
}

func (r *rig) Ended(node, uri string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, node+" "+uri)
}

func (c *rigged) Close(ctx context.Context) error {
	if c.rig.stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	c.rig.mu.Lock()
	defer c.rig.mu.Unlock()
	c.rig.closed = append(c.rig.closed, c.node)
	return nil
}

func newBMCs(t *testing.T, r *rig, dir string, gap time.Duration) (*BMCs, *journal.Journal) {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBMCs(NewTypes(Redfish(r), Fake(r)), j, r, gap, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b, j
}

func target(node, address string) bmc.Target {
	return bmc.Target{Node: node, DriverInfo: map[string]string{"redfish_address": address}}
}

type fenceFn = func(context.Context) error

// TestTurns: turns at one BMC come one at a time, in order, with a gap; another BMC is not held up.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := newBMCs(t, &rig{fake: fake.New()}, t.TempDir(), 100*time.Millisecond)
		defer j.Close()
		began := time.Now()
		var order []string
		var at []time.Duration
		hold, ends := make(chan struct{}), make(chan error, 9)
		turn := func(node, address string, wait bool) {
			go func() {
				ends <- b.Turn(t.Context(), "redfish", target(node, address), func(context.Context, bmc.Client, fenceFn) error {
					order, at = append(order, node), append(at, time.Since(began))
					if wait {
						<-hold
					}
					return nil
				})
			}()
			synctest.Wait()
		}
		turn("slow", "https://bmc1", true)
		turn("n2", "https://bmc1/", false) // the same BMC, written otherwise
		turn("n3", "https://bmc1", false)
		turn("other", "https://bmc2", false)
		if !slices.Equal(order, []string{"slow", "other"}) {
			t.Fatalf("turns so far: %v", order)
		}
		gone, cancel := context.WithCancelCause(t.Context())
		go func() {
			ends <- b.Turn(gone, "redfish", target("n4", "https://bmc1"), func(context.Context, bmc.Client, fenceFn) error {
				t.Error("a caller that left got a turn")
				return nil
			})
		}()
		synctest.Wait()
		cancel(fault.New(fault.Aborted, "step", "cancelled"))
		<-time.After(time.Second)
		close(hold)
		aborted := 0
		for range 5 {
			if err := <-ends; fault.Is(err, fault.Aborted) {
				aborted++
			} else if err != nil {
				t.Error(err)
			}
		}
		if want := []string{"slow", "other", "n2", "n3"}; !slices.Equal(order, want) || aborted != 1 {
			t.Errorf("turns %v, want %v; %d aborted", order, want, aborted)
		}
		if at[2] != 1100*time.Millisecond || at[3] != 1200*time.Millisecond {
			t.Errorf("turns at %v, want gaps of 100ms", at)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := newBMCs(t, &rig{fake: fake.New()}, t.TempDir(), time.Millisecond)
		defer j.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ends := make(chan error, MaxWaiting+2)
		for range MaxWaiting + 1 {
			go func() {
				ends <- b.Turn(ctx, "redfish", target("n", "https://bmc1"), func(ctx context.Context, _ bmc.Client, _ fenceFn) error {
					<-ctx.Done()
					return ctx.Err()
				})
			}()
		}
		synctest.Wait()
		err := b.Turn(ctx, "redfish", target("n", "https://bmc1"), func(context.Context, bmc.Client, fenceFn) error { return nil })
		if !fault.Is(err, fault.Busy) {
			t.Errorf("one too many: %v, want busy", err)
		}
		cancel()
		for range MaxWaiting + 1 {
			if err := <-ends; err == nil {
				t.Error("a cancelled turn succeeded")
			}
		}
	})
}

// TestClientsAndFences: a client is kept, its session recorded before use; after a restart the earlier session is
// named to the BMC; new driver_info makes a new client.
func TestClientsAndFences(t *testing.T) {
	dir, r := t.TempDir(), &rig{fake: fake.New()}
	b, j := newBMCs(t, r, dir, time.Nanosecond)
	use := func(b *BMCs, address string) error {
		return b.Turn(t.Context(), "redfish", target("n1", address), func(ctx context.Context, _ bmc.Client, fence fenceFn) error {
			return errors.Join(fence(ctx), fence(ctx))
		})
	}
	for range 2 {
		if err := use(b, "https://bmc1"); err != nil {
			t.Fatal(err)
		}
	}
	if r.opened != 1 || len(r.fences) != 1 || len(r.fences[0]) != 0 {
		t.Errorf("opened %d, fences %v", r.opened, r.fences)
	}
	if err := use(b, "https://bmc2"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for range 3 { // ctx is over: Run may take the end first, and closes what is open; the retired one is in the queue
		_ = b.Run(ctx)
	}
	if !slices.Contains(r.closed, "n1") {
		t.Error("no client was closed")
	}
	if err := use(b, "https://bmc2"); err != nil { // open when this life ends
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b2, j2 := newBMCs(t, r, dir, time.Nanosecond)
	defer j2.Close()
	if err := use(b2, "https://bmc2"); err != nil {
		t.Fatal(err)
	}
	if last := r.fences[len(r.fences)-1]; !slices.Equal(last, []string{"/sessions/n1"}) {
		t.Errorf("after the restart the BMC is told of %v", last)
	}
	if err := b2.Turn(t.Context(), "ipmi", target("n1", ""), nil); !fault.Is(err, fault.Unsupported) {
		t.Errorf("unknown hardware type: %v", err)
	}
}

// TestClosedSessionWasEndedAgain: the URI of a session that was closed, or left to the node's next owner, stayed in the
// journal; in a later life of the agent it was another's.
func TestClosedSessionWasEndedAgain(t *testing.T) {
	over, stop := context.WithCancel(t.Context())
	stop()
	for name, end := range map[string]func(*BMCs){
		"closed at the end":             func(b *BMCs) { _ = b.Run(over) },
		"node given away":               func(b *BMCs) { b.Forget("n1"); _ = b.Run(over) },
		"node given away, not closable": func(b *BMCs) { b.Forget("n1") },
	} {
		dir, r := t.TempDir(), &rig{fake: fake.New()}
		use := func(b *BMCs) {
			t.Helper()
			if err := b.Turn(t.Context(), "redfish", target("n1", "https://bmc1"), func(ctx context.Context, _ bmc.Client, fence fenceFn) error { return fence(ctx) }); err != nil {
				t.Fatal(err)
			}
		}
		b, j := newBMCs(t, r, dir, time.Nanosecond)
		use(b)
		end(b)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		later, j := newBMCs(t, r, dir, time.Nanosecond)
		use(later)
		if last := r.fences[len(r.fences)-1]; len(last) != 0 {
			t.Errorf("%s: the next life ends %v", name, last)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeadBMCsHeldUpTheOthers: clients were closed one after the other, also when the agent stopped.
func TestDeadBMCsHeldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{fake: fake.New(), stuck: true}
		b, j := newBMCs(t, r, t.TempDir(), time.Nanosecond)
		defer j.Close()
		const clients = 10 * closersAtOnce
		for i := range clients {
			node := fmt.Sprint("n", i)
			if err := b.Turn(t.Context(), "redfish", target(node, "https://"+node), func(context.Context, bmc.Client, fenceFn) error { return nil }); err != nil {
				t.Fatal(err)
			}
			b.Forget(node)
		}
		ctx, stop := context.WithCancel(t.Context())
		begun := time.Now()
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		time.AfterFunc(closeWait/2, stop)
		<-done
		if took := time.Since(begun); took > closeWait+stopWait {
			t.Errorf("closing %d clients of dead BMCs took %v", clients, took)
		}
	})
}

// TestEarlierOwnersSessions: what the assignment names is ended once, before the first effect and again when it names
// more; the coordinators are told what is over; without a record there is no effect.
func TestEarlierOwnersSessions(t *testing.T) {
	r := &rig{fake: fake.New()}
	b, j := newBMCs(t, r, t.TempDir(), time.Nanosecond)
	defer j.Close()
	use := func(sessions ...string) error {
		to := target("n1", "https://bmc1")
		to.Sessions = sessions
		return b.Turn(t.Context(), "redfish", to, func(ctx context.Context, _ bmc.Client, fence fenceFn) error { return fence(ctx) })
	}
	r.noted = fault.New(fault.Unavailable, "record BMC session", "the node is not this agent's")
	if err := use("/sessions/a"); !fault.Is(err, fault.Unavailable) || len(r.fences) != 0 {
		t.Errorf("a session that was not recorded: %v, ended %v", err, r.fences)
	}
	r.noted = nil
	for _, sessions := range [][]string{{"/sessions/a"}, {"/sessions/a"}, {"/sessions/a", "/sessions/n1", "/sessions/b"}} {
		if err := use(sessions...); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.fences) != 2 || !slices.Equal(r.fences[0], []string{"/sessions/a"}) || !slices.Contains(r.fences[1], "/sessions/b") {
		t.Errorf("the BMC was told to end %v", r.fences)
	}
	if want := []string{"n1 /sessions/a", "n1 /sessions/b"}; !slices.Equal(r.ended, want) {
		t.Errorf("reported as over: %v, want %v", r.ended, want)
	}
	b.Forget("n1")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := b.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if last := r.ended[len(r.ended)-1]; last != "n1 /sessions/n1" {
		t.Errorf("reported last: %s; the session was closed with the node", last)
	}
}

func TestSimulator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcomes, contacts := make(chan work.Outcome, 9), make(chan Contact, 9)
		s := NewSimulator(func(all ...work.Outcome) {
			for _, o := range all {
				outcomes <- o
			}
		}, func(c Contact) { contacts <- c })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		info := map[string]string{"fake_boot_delay": "2s", "fake_step_delay": "1s", "fake_step_fault": "write_image"}
		began := time.Now()
		s.PowerOn(Contact{Node: "n1", BootID: "b1"}, info, 0)
		s.PowerOn(Contact{Node: "n1", BootID: "b1"}, info, 0) // a repeat
		s.PowerOn(Contact{Node: "n2", BootID: "b2"}, info, 0)
		s.PowerOff("n2")
		if c := <-contacts; c.Node != "n1" || len(c.KeyHash) != 64 || time.Since(began) != 2*time.Second {
			t.Errorf("contact %+v after %v", c, time.Since(began))
		}
		s.PowerOn(Contact{Node: "n1", BootID: "b1"}, info, 0) // contact was made
		o := func(name string, n uint32) work.Order {
			return work.Order{Ref: work.Ref{Node: "n1", Flow: 1, Step: n}, Interface: "deploy", Name: name, Executor: step.Ramdisk}
		}
		s.Deliver(info, o("inventory", 1))
		s.Deliver(info, o("inventory", 1))
		out := <-outcomes
		dec, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		if doc, err := dec.DecodeAll(out.Inventory, nil); err != nil || len(doc) == 0 || out.Facts["simulated"] != "true" || !out.OK {
			t.Errorf("inventory: %+v, %v", out, err)
		}
		s.Deliver(info, o("write_image", 2))
		if out := <-outcomes; out.OK {
			t.Errorf("fake_step_fault is ignored: %+v", out)
		}
		s.Deliver(info, o("erase_devices", 3))
		s.Cancel(o("erase_devices", 3), "abort")
		if out := <-outcomes; out.OK || out.Kind != fault.Aborted {
			t.Errorf("cancelled: %+v", out)
		}
		s.PowerOn(Contact{Node: "n3", BootID: "b3"}, map[string]string{"fake_boot_fault": "silent"}, 0)
		<-time.After(time.Hour)
		if len(contacts) != 0 || len(outcomes) != 0 {
			t.Errorf("%d contacts and %d outcomes too many", len(contacts), len(outcomes))
		}
		stop()
		<-done
	})
}

// TestCatalogue: every step of every type can be found, and says who runs it and of which class it is.
func TestCatalogue(t *testing.T) {
	types := NewTypes(Redfish(&rig{}), Fake(&rig{}))
	if !slices.Equal(types.Names(), []string{"fake-hardware", "redfish"}) {
		t.Error(types.Names())
	}
	for name, typ := range types {
		for _, i := range typ.Interfaces {
			if i.Kind.String() == "unknown" || i.Name == "" {
				t.Errorf("%s: interface %+v", name, i)
			}
			for _, s := range i.Steps {
				found, ok := typ.Step(i.Kind.String(), s.Name)
				if !ok || found.Executor == 0 || found.Class == 0 || found.NeedsRamdisk() != (s.Executor == step.Ramdisk) {
					t.Errorf("%s %s.%s: %+v", name, i.Kind, s.Name, found)
				}
			}
		}
	}
}

// TestAGlanceIsInNobodysWay: it does not wait for a BMC that somebody has, and gives it up, at once, to whoever comes.
func TestAGlanceIsInNobodysWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := newBMCs(t, &rig{fake: fake.New()}, t.TempDir(), 100*time.Millisecond)
		defer j.Close()
		to := target("n1", "https://bmc1")
		began, ends := make(chan struct{}), make(chan error, 1)
		glance := func() {
			go func() {
				ends <- b.Glance(t.Context(), "redfish", to, func(ctx context.Context, _ bmc.Client) error {
					close(began)
					<-ctx.Done()
					return context.Cause(ctx)
				})
			}()
		}
		glance()
		<-began
		if err := b.Glance(t.Context(), "redfish", to, nil); !fault.Is(err, fault.Busy) {
			t.Errorf("a second glance: %v", err)
		}
		came := time.Now()
		check := func(context.Context, bmc.Client, fenceFn) error {
			if err := b.Glance(t.Context(), "redfish", to, nil); !fault.Is(err, fault.Busy) {
				t.Errorf("a glance during a turn: %v", err)
			}
			return nil
		}
		if err := b.Turn(t.Context(), "redfish", to, check); err != nil {
			t.Fatal(err)
		}
		if err := <-ends; !fault.Is(err, fault.Aborted) {
			t.Errorf("the glance ended with %v", err)
		}
		if waited := time.Since(came); waited > 100*time.Millisecond {
			t.Errorf("a turn waited %v for a glance", waited)
		}
		read := func(ctx context.Context, c bmc.Client) error { _, err := c.Power(ctx); return err }
		if err := b.Glance(t.Context(), "redfish", to, read); err != nil { // the turn's mark is gone
			t.Error(err)
		}
		if err := b.Glance(t.Context(), "ipmi", to, read); !fault.Is(err, fault.Unsupported) {
			t.Errorf("a glance by a driver that there is not: %v", err)
		}
	})
}
