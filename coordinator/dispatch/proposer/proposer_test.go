package proposer

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
)

// picky is a replica that takes so many commands at once, and is busy so many times.
type picky struct {
	most, busy int
	fails      int // the proposal of this number, from 1, has an unknown outcome; 0: none
	proposals  int
	taken      []string // the task of each lock, which names its command here
}

func (p *picky) Propose(_ context.Context, cmds ...command.Command) ([]command.Result, error) {
	switch {
	case p.busy > 0:
		p.busy--
		return nil, fault.New(fault.Busy, "propose", "others wait")
	case len(cmds) > p.most:
		return nil, fault.New(fault.TooLarge, "propose", "%d commands", len(cmds))
	}
	if p.proposals++; p.proposals == p.fails {
		return nil, fault.New(fault.UnknownOutcome, "propose", "the leader is gone")
	}
	results := make([]command.Result, len(cmds))
	for i, c := range cmds {
		name := c.Body.(command.AcquireLock).Task
		p.taken, results[i].Session = append(p.taken, name), name
	}
	return results, nil
}

func (p *picky) View() *state.View { return apply.New().View() }

func locks(names ...string) []command.Body {
	var all []command.Body
	for _, n := range names {
		all = append(all, command.AcquireLock{Task: n})
	}
	return all
}

func TestAllAreProposedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &picky{most: 2, busy: 3}
		p := New("c1", r, clock.NewMonotonic())
		results, err := p.All(t.Context(), p.Stamp("agent a", locks("1", "2", "3", "4", "5")...))
		if err != nil || len(results) != 5 || len(r.taken) != 5 {
			t.Fatalf("%d results of %v, %v", len(results), r.taken, err)
		}
		for i, want := range []string{"1", "2", "3", "4", "5"} {
			if r.taken[i] != want || results[i].Session != want {
				t.Errorf("command %d: %s was taken, its result is %s's", i+1, r.taken[i], results[i].Session)
			}
		}
	})
}

func TestOneThatIsTooLargeAloneHasThatAsItsResult(t *testing.T) {
	p := New("c1", &picky{}, clock.NewMonotonic())
	results, err := p.All(t.Context(), p.Stamp("agent a", locks("1", "2")...))
	if err != nil || len(results) != 2 || !fault.Is(results[0].Err, fault.TooLarge) || !fault.Is(results[1].Err, fault.TooLarge) {
		t.Errorf("%+v, %v", results, err)
	}
}

func TestPartThatIsCommittedIsNotCalledNothing(t *testing.T) {
	p := New("c1", &picky{most: 1, fails: 2}, clock.NewMonotonic())
	if _, err := p.All(t.Context(), p.Stamp("agent a", locks("1", "2")...)); !fault.Is(err, fault.UnknownOutcome) {
		t.Errorf("the second half failed: %v", err)
	}
}

func TestBusyReplicaIsLeftWhenTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New("c1", &picky{most: 1, busy: 1 << 30}, clock.NewMonotonic())
		ctx, cancel := Bounded(t.Context())
		defer cancel()
		if _, err := p.All(ctx, p.Stamp("agent a", locks("1")...)); !fault.Is(err, fault.Timeout) {
			t.Errorf("after %v: %v", within, err)
		}
	})
}

func TestSeedsAreOfWhatMayDrawAnID(t *testing.T) {
	p := New("c1", &picky{}, clock.NewMonotonic())
	a := p.Stamp(p.Self(), command.Provision{}, command.Provision{}, command.Tick{})
	if a[0].Header.Seed == a[1].Header.Seed || a[0].Header.Seed == [16]byte{} || a[2].Header.Seed != [16]byte{} {
		t.Errorf("seeds %x, %x, of a tick %x", a[0].Header.Seed, a[1].Header.Seed, a[2].Header.Seed)
	}
	if a[0].Header.Actor != "coordinator c1" {
		t.Errorf("it is %s", a[0].Header.Actor)
	}
}
