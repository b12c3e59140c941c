package leader

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// poll is how often it is looked again who leads, while nobody does.
const poll = 20 * time.Millisecond

// Reader is this member's part in the consensus, and its view of the state.
type Reader interface {
	View() *state.View
	// ReadIndex is the index that a linearizable read must wait for. Leader only.
	ReadIndex(ctx context.Context) (uint64, error)
	// Leading tells whether this member leads and has applied its term's barrier.
	Leading() (term uint64, ok bool)
	Leader() (id, raftAddress string, known bool)
}

// Config is what a Finder needs. All fields must be set.
type Config struct {
	Self      string // this member's name
	Reader    Reader
	Transport http.RoundTripper // to other coordinators' APIs, with this member's certificate
	Wait      time.Duration     // how long a request waits for a leader before it fails with no_quorum
}

// Finder knows who leads.
type Finder struct {
	cfg   Config
	mu    sync.Mutex // guards era and end
	era   context.Context
	end   context.CancelFunc
	index coalesced
}

// New is a Finder; Run must run.
func New(cfg Config) *Finder {
	f := &Finder{cfg: cfg}
	f.era, f.end = context.WithCancel(context.Background())
	return f
}

// Wait is how long a request waits for a leader.
func (f *Finder) Wait() time.Duration { return f.cfg.Wait }

// Run follows the leadership until ctx ends. wake comes after each change of it.
func (f *Finder) Run(ctx context.Context, wake <-chan struct{}) error {
	last, _, _ := f.cfg.Reader.Leader()
	for {
		select {
		case <-ctx.Done():
			f.turn(true)
			return nil
		case <-wake:
		}
		id, _, known := f.cfg.Reader.Leader()
		if !known || id == last {
			continue
		}
		last = id
		f.turn(false)
	}
}

// turn ends all attempts at the leader of before.
func (f *Finder) turn(closing bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end()
	if !closing {
		f.era, f.end = context.WithCancel(context.Background())
	}
}

// Era ends when another leader is known: whoever waits for an answer of the one before need not wait any longer.
func (f *Finder) Era() context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.era
}

// Route waits for a leader. It is here if this member leads. A request that another member sent on is never sent
// on again.
func (f *Finder) Route(ctx context.Context, forwarded bool) (here bool, err error) {
	if _, ok := f.cfg.Reader.Leading(); ok {
		return true, nil
	}
	id, _, known := f.cfg.Reader.Leader()
	if forwarded && known && id != f.cfg.Self {
		return false, f.NotHere()
	}
	_, err = f.Find(ctx, time.Now().Add(f.cfg.Wait))
	if errors.Is(err, ErrHere) {
		return true, nil
	}
	if err == nil && forwarded {
		return false, f.NotHere()
	}
	return false, err
}

const opLeader = "find leader"

// ErrHere answers the question for another leader where this member leads.
var ErrHere = errors.New("this member leads")

// NotHere is the refusal of a member that does not lead, with the leader's address if it is known.
func (f *Finder) NotHere() error {
	e := fault.New(fault.NotLeader, "", "%s does not lead", f.cfg.Self)
	if m, ok := f.Other(); ok {
		return e.WithDetail(&fault.LeaderDetail{Address: m.APIAddress})
	}
	return e
}

// Other is the record of the leader, if it is another member and known.
func (f *Finder) Other() (command.Member, bool) {
	id, _, known := f.cfg.Reader.Leader()
	if !known || id == f.cfg.Self {
		return command.Member{}, false
	}
	m, ok := f.cfg.Reader.View().Member(id)
	if !ok {
		return command.Member{}, false
	}
	return *m, true
}

// Find waits until a leader is known, and answers its member record, or ErrHere.
func (f *Finder) Find(ctx context.Context, until time.Time) (command.Member, error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if _, ok := f.cfg.Reader.Leading(); ok {
			return command.Member{}, ErrHere
		}
		if m, ok := f.Other(); ok {
			return m, nil
		}
		if time.Now().After(until) {
			return command.Member{}, fault.New(fault.NoQuorum, opLeader, "no coordinator leads, as seen from %s for %v", f.cfg.Self, f.cfg.Wait)
		}
		select {
		case <-ctx.Done():
			return command.Member{}, fault.New(fault.Timeout, opLeader, "no coordinator leads, as seen from %s: %w", f.cfg.Self, ctx.Err()).
				WithHelp(refusal.NeedMajority)
		case <-tick.C:
		}
	}
}
