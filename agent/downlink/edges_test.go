package downlink

import (
	"slices"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// kinds lists the edges that are due at a moment of the fake clock.
func (r *rack) kinds() (kinds []string) {
	for _, e := range r.due(r.clock.Boottime()) {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func want(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: edges %v, want %v", when, got, want)
	}
}

// heard plays a call of the ramdisk.
func (r *rack) heard(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.boots[id].seen(r.clock.Boottime())
}

func known(a *farrierv1.Assign) { a.Boot.KeyHash = strings.Repeat("ab", 32) }

func TestSilence(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	r.clock.advance(10 * time.Minute)
	want(t, "nobody has come yet", r.kinds())
	r.assign(t, known) // claimed at an earlier owner: silence counts from here
	r.mu.Lock()
	r.boots[bootA].lastSeen = r.clock.Boottime()
	r.mu.Unlock()
	r.clock.advance(DefaultSilence - 1)
	want(t, "before the limit", r.kinds())
	r.clock.advance(1)
	want(t, "at the limit", r.kinds(), edgeSilent)
	r.clock.advance(time.Second)
	want(t, "told once", r.kinds())
	r.clock.advance(DefaultSilence)
	want(t, "still silent", r.kinds(), edgeSilent)
	r.heard(bootA)
	want(t, "heard again", r.kinds(), edgeHeard)
	r.heard(bootA)
	want(t, "heard is told once", r.kinds())
	r.clock.advance(DefaultSilence)
	want(t, "silent again", r.kinds(), edgeSilent)
}

func TestSilenceCountsFromTheReceiptOfAClaimedAttempt(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.clock.advance(time.Hour)
	r.assign(t, known)
	want(t, "at the receipt", r.kinds())
	r.clock.advance(30 * time.Second)
	r.assign(t, known) // a renewal does not start the count again
	r.clock.advance(30 * time.Second)
	want(t, "a minute after it", r.kinds(), edgeSilent)
}

func TestPowerOffIsNotSilence(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	client := newRamdisk(t).enter(r)
	deliver(t, r, order("tear_down_agent", 1, 11))
	resp, err := client.NextCommand(t.Context(), next(nil, 0))
	if err != nil || resp.GetCommand().GetStep() != "power_off" {
		t.Fatalf("%v, %v", resp, err)
	}
	r.clock.advance(time.Hour)
	want(t, "powered off as told", r.kinds())
}

func TestFirstContactIsToldUntilKnown(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	m := newRamdisk(t)
	m.enter(r)
	e := r.edge(t, edgeFirstContact)
	want(t, "just told", r.kinds())
	r.clock.advance(edgeRepeat)
	want(t, "not known yet", r.kinds(), edgeFirstContact)
	r.assign(t, func(a *farrierv1.Assign) { a.Boot.KeyHash = e.KeyHash })
	r.clock.advance(edgeRepeat)
	want(t, "known", r.kinds())
}

func TestSecondClaimIsToldUntilClosed(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	newRamdisk(t).enter(r)
	r.assign(t, known) // another agent let another ramdisk in
	want(t, "at once", r.kinds(), edgeSecondClaim)
	want(t, "just told", r.kinds())
	r.clock.advance(edgeRepeat)
	want(t, "again", r.kinds(), edgeSecondClaim)
	r.assign(t, func(a *farrierv1.Assign) { a.Boot = nil })
	r.clock.advance(edgeRepeat)
	want(t, "closed", r.kinds())
}

func TestUnexpectedBoot(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, nil)
	r.BootAsked(bootA) // the first start: nobody has claimed it
	r.BootAsked("unknown")
	r.clock.advance(time.Minute)
	want(t, "before the claim", r.kinds())

	r.assign(t, known)
	r.heard(bootA)
	r.clock.advance(time.Second)
	r.BootAsked(bootA)
	r.clock.advance(2 * time.Second)
	r.heard(bootA)
	r.clock.advance(30 * time.Second)
	want(t, "the ramdisk lives: the request was not its machine's", r.kinds())

	r.heard(bootA)
	r.clock.advance(3 * time.Second)
	r.BootAsked(bootA)
	r.clock.advance(10 * time.Second)
	r.BootAsked(bootA) // iPXE after firmware: one start
	want(t, "a heartbeat may still come", r.kinds())
	r.clock.advance(5 * time.Second)
	want(t, "quiet for a heartbeat and a half", r.kinds(), edgeUnexpected)
	want(t, "told once", r.kinds())
}

func TestRunEmits(t *testing.T) {
	t.Parallel()
	r := newRack(t, newCA(t), "a", "rack1")
	r.assign(t, known)
	r.clock.advance(DefaultSilence)
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(t.Context()) }()
	r.edge(t, edgeSilent)
}
