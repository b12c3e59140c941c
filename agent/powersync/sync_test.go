package powersync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

// rack is machines, and what was said of them.
type rack struct {
	mu    sync.Mutex // guards the fields below
	power map[string]bmc.PowerState
	dead  map[string]error // what a BMC answers instead
	hang  map[string]bool  // no answer at all
	taken map[string]bool  // somebody else has the BMC
	ends  map[string]context.CancelCauseFunc
	asked map[string]int
	said  []Seen
	most  int // at one time
	now   int
}

func newRack() *rack {
	return &rack{power: map[string]bmc.PowerState{}, dead: map[string]error{}, hang: map[string]bool{}, taken: map[string]bool{},
		ends: map[string]context.CancelCauseFunc{}, asked: map[string]int{}}
}

func (r *rack) Glance(ctx context.Context, node string, fn func(context.Context, Power) error) error {
	r.mu.Lock()
	if r.taken[node] {
		r.mu.Unlock()
		return fault.New(fault.Busy, "look", "somebody has it")
	}
	ctx, r.ends[node] = context.WithCancelCause(ctx)
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.now--
	}()
	return fn(ctx, machine{r, node})
}

type machine struct {
	*rack
	node string
}

func (m machine) Power(ctx context.Context) (bmc.PowerState, error) {
	m.mu.Lock()
	m.asked[m.node]++
	power, err, hang := m.power[m.node], m.dead[m.node], m.hang[m.node]
	m.mu.Unlock()
	if hang {
		<-ctx.Done()
		return bmc.PowerUnknown, fault.New(fault.Unavailable, "read power state", "%w", ctx.Err())
	}
	return power, err
}

func (r *rack) saw(s Seen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, s)
}

// news is what was said since the last call.
func (r *rack) news() []Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.said = nil }()
	return r.said
}

func (r *rack) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// run has a Sync look at the rack for the time of fn.
func run(t *testing.T, r *rack, interval time.Duration, fn func(s *Sync)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Every: interval, Recovery: recovery, BMCs: r, Saw: r.saw, Clock: clock.NewMonotonic(), Log: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		fn(s)
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// pass lets time go by in the bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestAButtonThatSomebodyPressedIsSeen(t *testing.T) {
	r := newRack()
	r.power["n1"] = bmc.PowerOn
	run(t, r, every, func(s *Sync) {
		s.Assigned(resting("n1", bmc.PowerOn))
		pass(10 * every)
		if said := r.news(); len(said) != 0 || r.asked["n1"] != 10 {
			t.Errorf("%d readings in ten intervals, said %v", r.asked["n1"], said)
		}
		r.set(func() { r.power["n1"] = bmc.PowerOff })
		pass(every)
		if said := r.news(); !slices.Equal(said, []Seen{{Node: "n1", Epoch: 3, Power: bmc.PowerOff}}) {
			t.Errorf("said %v", said)
		}
		s.Forgotten("n1")
		pass(every)
		if said := r.news(); len(said) != 0 {
			t.Errorf("said %v of another agent's node", said)
		}
	})
}

func TestADeadBMCIsSaidOnceItHasFailedThrice(t *testing.T) {
	for name, prep := range map[string]func(r *rack){
		"no answer within 30s":            func(r *rack) { r.hang["n1"] = true },
		"connection refused":              func(r *rack) { r.dead["n1"] = errors.New("connection refused") },
		"the BMC says neither on nor off": func(r *rack) {},
		"the BMC refuses the password (401)": func(r *rack) {
			r.dead["n1"] = fault.New(fault.Unauthenticated, "", "the BMC refuses the password (401)")
		},
	} {
		r := newRack()
		prep(r)
		run(t, r, every, func(s *Sync) {
			s.Assigned(resting("n1", bmc.PowerOn))
			var said []Seen
			for limit := 10 * every; len(said) == 0 && limit > 0; limit -= time.Second {
				pass(time.Second)
				said = r.news()
			}
			if len(said) != 1 || said[0].Power != bmc.PowerUnknown || r.asked["n1"] != Failures ||
				!strings.HasPrefix(said[0].Error, "3 readings in a row failed, the last with: ") || !strings.HasSuffix(said[0].Error, name) {
				t.Errorf("%s: after %d readings said %v", name, r.asked["n1"], said)
			}
		})
	}
}

// TestAnOrderEndsALook: neither a BMC that others have, nor one that was given up for somebody who came, is a failure.
func TestAnOrderEndsALook(t *testing.T) {
	r := newRack()
	r.hang["n1"], r.taken["n2"] = true, true
	run(t, r, every, func(s *Sync) {
		s.Assigned(resting("n1", bmc.PowerOn))
		s.Assigned(resting("n2", bmc.PowerOn))
		for range 50 {
			pass(every / 12)
			r.set(func() {
				if end := r.ends["n1"]; end != nil {
					end(fault.New(fault.Aborted, "look", "somebody came"))
				}
			})
		}
		if said := r.news(); len(said) != 0 || r.asked["n1"] < 10 || r.asked["n2"] != 0 {
			t.Errorf("asked %v, said %v", r.asked, said)
		}
	})
}

// TestDeadBMCsAreWaitedForInBoundedNumber: a rack whose BMCs are all silent keeps AtOnce goroutines, and the end of the agent ends them.
func TestDeadBMCsAreWaitedForInBoundedNumber(t *testing.T) {
	r := newRack()
	run(t, r, every, func(s *Sync) {
		for i := range 2500 {
			node := fmt.Sprintf("node-%d", i)
			r.set(func() { r.hang[node] = true })
			s.Assigned(resting(node, bmc.PowerOn))
		}
		pass(10 * every)
		if r.most != AtOnce {
			t.Errorf("%d at one time", r.most)
		}
	})
}

func TestSwitchedOff(t *testing.T) {
	r := newRack()
	run(t, r, 0, func(s *Sync) {
		s.Assigned(resting("n1", bmc.PowerOn))
		s.Forgotten("n1")
		pass(10 * every)
		if r.asked["n1"] != 0 {
			t.Error("it reads")
		}
	})
}
