package dispatch

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// planner keeps what the agents are told equal to what plan derives from the newest view. One goroutine owns
// everything but the notes.
type planner struct {
	d    *Dispatch
	work chan struct{} // capacity 1

	term  uint64 // in which the fields below were filled; 0: not leading
	pos   state.Position
	links map[string]*link
	later map[node.ID]time.Duration // nodes whose order may not start before that elapsed time
	check bool                      // sessions or groups may have changed

	mu    sync.Mutex // guards notes
	notes []note
}

// note is what other goroutines tell the planner.
type note struct {
	kind noteKind
	link *link
	free uint32   // noteCapacity
	node node.ID  // noteEnded
	ref  orderKey // noteEnded
}

type noteKind uint8

const (
	_            noteKind = iota
	noteAttach            // a stream has its session
	noteDetach            // a stream is over
	noteCapacity          // an agent says how many workers are free
	noteEnded             // an agent says how an attempt ended
)

func newPlanner(d *Dispatch) *planner {
	return &planner{d: d, work: make(chan struct{}, 1), links: map[string]*link{}, later: map[node.ID]time.Duration{}}
}

// wake asks for a round. Rounds are coalesced.
func (p *planner) wake() { signal(p.work) }

// note is bounded by what the streams have in flight: at most a few per message received.
func (p *planner) note(n note) {
	p.mu.Lock()
	p.notes = append(p.notes, n)
	p.mu.Unlock()
	if n.kind != noteEnded { // its outcome's entry will wake us
		p.wake()
	}
}

func (p *planner) run(ctx context.Context) error {
	changes, stop := p.d.cfg.Changes.Subscribe()
	defer stop()
	for {
		p.round()
		select {
		case <-ctx.Done():
			p.resign(fault.New(fault.Unavailable, "serve agents", "the coordinator stops"))
			return nil
		case <-changes:
		case <-p.work:
		}
	}
}

// round brings every agent up to date with the newest view.
func (p *planner) round() {
	term, leading := p.d.cfg.Replica.Leading()
	if !leading {
		term = 0
	}
	if term != p.term {
		p.turn(term)
	}
	p.mu.Lock()
	notes := p.notes
	p.notes = nil
	p.mu.Unlock()
	if p.term == 0 && len(notes) == 0 {
		return // a follower needs no view
	}
	v := p.d.cfg.Replica.View() // after the notes: it holds what they speak of
	for _, n := range notes {
		p.take(v, n)
	}
	if p.term == 0 {
		return
	}
	p.follow(v)
	for id, at := range p.later {
		if at <= v.Elapsed() {
			delete(p.later, id)
			p.dirty(v, id)
		}
	}
	if p.check {
		p.check = false
		p.endSessions(v)
		p.groups(v)
	}
	for _, l := range p.links {
		p.advance(v, l)
	}
}

// turn begins a term, or ends one when term is 0.
func (p *planner) turn(term uint64) {
	if p.term != 0 {
		p.resign(fault.New(fault.NotLeader, "wait for the lock", "another coordinator leads now"))
	}
	if term != 0 {
		p.pos = p.d.cfg.Replica.View().Position()
		p.d.cfg.Log.Info("this coordinator serves the agents", "term", term)
	}
	p.term = term
}

// resign sends everybody away.
func (p *planner) resign(why error) {
	for _, l := range p.links {
		l.out.End(p.d.redirection())
	}
	clear(p.links)
	clear(p.later)
	p.term = 0
	p.d.waiters.Fail(why)
	p.d.progress.Clear()
}

func (p *planner) take(v *state.View, n note) {
	l := n.link
	if n.kind != noteAttach && p.links[l.agent] != l {
		return // of a stream that was replaced
	}
	switch n.kind {
	case noteAttach:
		if l.term != p.term {
			l.out.End(p.d.redirection())
			return
		}
		if old := p.links[l.agent]; old != nil {
			old.out.End(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_SessionEnded{
				SessionEnded: &farrierv1.SessionEnded{Reason: "the agent opened another stream"}}})
		}
		p.links[l.agent] = l
		l.told.all(v, l.agent)
		p.check = true
	case noteDetach:
		delete(p.links, l.agent)
	case noteCapacity:
		l.told.credit = int(n.free)
	case noteEnded:
		l.told.ended(n.node, n.ref)
	}
}

// follow reads the events since the last round and marks what they touch.
func (p *planner) follow(v *state.View) {
	for range 8 {
		events, _, compacted := v.Events(p.pos, 4096)
		if compacted {
			p.pos = v.Position()
			p.check = true
			for _, l := range p.links {
				l.told.all(v, l.agent)
			}
			p.d.waiters.LookAll()
			return
		}
		for i := range events {
			p.touch(v, &events[i])
		}
		if len(events) < 4096 {
			return
		}
	}
	p.wake()
}

// touch marks what one event may have changed. Lock events are the most frequent by far; a grant that an agent
// asked for, and a release, change nothing that an agent must be told.
func (p *planner) touch(v *state.View, e *state.Event) {
	p.pos = e.Position()
	if e.Node == "" {
		switch e.Type {
		case state.EventAgentSession, state.EventAgentDrain, state.EventAgentRemoved, state.EventCertificate, state.EventGeneration, state.EventSettings:
			p.check = true
		}
		return
	}
	switch e.Type {
	case state.EventLockReleased:
		p.d.waiters.Look(e.Node)
		return
	case state.EventLockGranted:
		if e.Fields["flow"] == "" {
			if n, ok := v.Node(e.Node); !ok || p.links[n.Owner] == nil || n.Lock.Session == p.links[n.Owner].session {
				return
			}
		}
	case state.EventNodeCreated: // nobody else has heard of it
		p.dirtyAt(e.Fields["owner"], e.Node)
		return
	case state.EventNodeOwner:
		p.dirtyAt(e.Fields["from"], e.Node)
	case state.EventNodeHandover:
		p.dirtyAt(e.Fields["agent"], e.Node)
	case state.EventNodeDeleted:
		for agent := range p.links {
			p.dirtyAt(agent, e.Node)
		}
	case state.EventFlowClosed:
		p.d.progress.Drop(e.Node)
	}
	p.d.waiters.Look(e.Node)
	p.dirty(v, e.Node)
}

// dirty marks a node at its owner and at the owner before, if they are here.
func (p *planner) dirty(v *state.View, id node.ID) {
	if n, ok := v.Node(id); ok {
		p.dirtyAt(n.Owner, id)
		p.dirtyAt(n.PrevOwner, id)
	}
}

func (p *planner) dirtyAt(agent string, id node.ID) {
	if l := p.links[agent]; l != nil {
		l.told.dirty[id] = struct{}{}
	}
}

// endSessions ends the streams whose session is over.
func (p *planner) endSessions(v *state.View) {
	for agent, l := range p.links {
		if _, live := v.Session(l.session); !live {
			l.out.End(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_SessionEnded{
				SessionEnded: &farrierv1.SessionEnded{Reason: "the session ended: its renewals did not arrive in time, it was replaced, or the agent was removed"}}})
			delete(p.links, agent)
		}
	}
}

// groups tells the agents of each group who else is there and who is not believed any more, if that changed.
func (p *planner) groups(v *state.View) {
	infos := map[string]*farrierv1.GroupInfo{}
	for _, l := range p.links {
		info := infos[l.group]
		if info == nil {
			info = groupInfo(v, l.group)
			infos[l.group] = info
		}
		if !sameGroup(l.told.group, info) {
			l.told.group = info
			l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_GroupInfo{GroupInfo: info}})
		}
	}
}

func sameGroup(a, b *farrierv1.GroupInfo) bool {
	if a == nil || len(a.Agents) != len(b.Agents) || !slices.EqualFunc(a.RevokedCoordinators, b.RevokedCoordinators, bytes.Equal) {
		return false
	}
	for i, x := range a.Agents {
		y := b.Agents[i]
		if x.Name != y.Name || x.RamdiskUrl != y.RamdiskUrl || x.HttpUrl != y.HttpUrl || x.RamdiskPin != y.RamdiskPin {
			return false
		}
	}
	return true
}

// notBefore is when the node's open attempt may start, if that is in the future.
func notBefore(v *state.View, n *node.Node) (time.Duration, bool) {
	if !n.FlowOpen {
		return 0, false
	}
	f, ok := v.Flow(n.Flow)
	if !ok || f.Status != flow.Running || f.Cur >= len(f.Steps) {
		return 0, false
	}
	a := f.Steps[f.Cur].Attempt
	return a.NotBefore, a.Open && a.NotBefore > v.Elapsed()
}
