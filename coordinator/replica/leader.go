package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/entry"
)

// leadership is what this member knows of its own. leads is the term whose barrier was applied here, at since.
type leadership struct {
	mu    sync.Mutex
	leads uint64
	since time.Time
	moved chan struct{} // closed and replaced at each change
}

// Leading tells whether this member leads and has applied all that earlier leaders committed (its term's barrier).
func (r *Replica) Leading() (term uint64, ok bool) {
	r.lead.mu.Lock()
	term = r.lead.leads
	r.lead.mu.Unlock()
	if term == 0 || r.latch.Failed() != nil || r.raft.State() != raft.Leader || r.raft.CurrentTerm() != term {
		return 0, false
	}
	return term, true
}

// Leader is the member that leads, as far as this one knows, and its Raft address.
func (r *Replica) Leader() (id, address string, known bool) {
	a, i := r.raft.LeaderWithID()
	return string(i), string(a), i != ""
}

func (r *Replica) leadMoved() <-chan struct{} {
	r.lead.mu.Lock()
	defer r.lead.mu.Unlock()
	return r.lead.moved
}

func (r *Replica) setLead(term uint64) {
	r.lead.mu.Lock()
	changed := r.lead.leads != term
	r.lead.leads, r.lead.since = term, time.Now()
	close(r.lead.moved)
	r.lead.moved = make(chan struct{})
	r.lead.mu.Unlock()
	if changed && term != 0 {
		r.log.Info("this coordinator leads", "term", term)
	}
	r.wakeAll()
}

// runLead follows raft's leadership and passes a barrier in each term.
func (r *Replica) runLead(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.raft.LeaderCh(): // its value may be old: raft is asked below
		}
		r.setLead(0)
		for r.raft.State() == raft.Leader && ctx.Err() == nil && r.latch.Failed() == nil {
			term := r.raft.CurrentTerm()
			if _, err := r.submit(ctx, entry.Commands, nil, 0); err != nil {
				select { // deposed or stopping, as the loop will find; or the queue is full
				case <-time.After(r.cfg.Election / 20):
				case <-ctx.Done():
				}
				continue
			}
			if r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term {
				r.setLead(term)
				break
			}
		}
	}
}

// runObserver wakes subscribers when another member is seen to lead.
func (r *Replica) runObserver(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-r.observed:
			if l, ok := o.Data.(raft.LeaderObservation); ok && l.LeaderID != "" && string(l.LeaderID) != r.cfg.Member {
				r.log.Info("another coordinator leads", "leader", string(l.LeaderID))
			}
			r.wakeAll()
		}
	}
}

// servers is the newest configuration of the cluster, committed or not.
func (r *Replica) servers() []raft.Server { return r.raft.GetConfiguration().Configuration().Servers }

func (r *Replica) voters() []raft.ServerID {
	var out []raft.ServerID
	for _, s := range r.servers() {
		if s.Suffrage == raft.Voter {
			out = append(out, s.ID)
		}
	}
	return out
}

// Subscription is woken after applied entries and leadership changes. It is level-triggered: the receiver reads View
// and Leading again.
type Subscription struct {
	C <-chan struct{} // never closed
	c chan struct{}
	r *Replica
}

// Subscribe adds a subscription; its first wake-up is waiting already. Close it.
func (r *Replica) Subscribe() *Subscription {
	c := make(chan struct{}, 1)
	c <- struct{}{}
	s := &Subscription{C: c, c: c, r: r}
	r.subs.Lock()
	defer r.subs.Unlock()
	r.subs.all = append(r.subs.all, s)
	return s
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.r.subs.Lock()
	defer s.r.subs.Unlock()
	s.r.subs.all = slices.DeleteFunc(s.r.subs.all, func(o *Subscription) bool { return o == s })
}

func (r *Replica) wakeAll() {
	r.subs.Lock()
	defer r.subs.Unlock()
	for _, s := range r.subs.all {
		poke(s.c)
	}
}
