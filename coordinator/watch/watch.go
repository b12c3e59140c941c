package watch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Timings and bounds of a watch.
const (
	progressEvery = 250 * time.Millisecond // between two looks at what runs
	watchBatch    = 256                    // events read from the state at a time
	maxTypes      = 64
	maxNodes      = 1000
)

// Changes wakes its receiver after each applied entry and each change of leader. Wake-ups are coalesced.
type Changes interface {
	// Subscribe returns the wake-up channel and how to end it.
	Subscribe() (c <-chan struct{}, stop func())
}

// Config is what a watch needs. All fields must be set.
type Config struct {
	Desk    *request.Desk
	Leader  *leader.Finder
	Changes Changes
	// Progress is what the node's running step last said of itself: the leader's memory.
	Progress func(node.ID) (flow.ID, int, *farrierv1.Progress, bool)
	// MaxWatchers bounds the open streams.
	MaxWatchers int
	// SyncedEvery is how often a stream says that all was sent, which is also its keep-alive.
	SyncedEvery time.Duration
}

// Service implements WatchService. It is safe for concurrent use.
type Service struct {
	cfg  Config
	open atomic.Int64
}

// New is the service of one member.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Watch implements WatchService. Any member serves it from its own state, in the order of the log; progress, which
// is in the leader's memory only, is relayed from there.
func (s *Service) Watch(ctx context.Context, req *farrierv1.WatchRequest, stream *connect.ServerStream[farrierv1.WatchResponse]) error {
	if s.open.Add(1) > int64(s.cfg.MaxWatchers) {
		s.open.Add(-1)
		return fault.New(fault.Busy, "watch", "this coordinator has its %d watchers", s.cfg.MaxWatchers).WithHelp("watch another coordinator")
	}
	defer s.open.Add(-1)
	ctx, stop := s.cfg.Desk.Hold(ctx)
	defer stop()
	// A member that has just started may lack what the caller has seen elsewhere: wait for it.
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return fault.Wrap("watch", err)
	}
	w := &watcher{cfg: s.cfg, stream: stream, types: map[string]bool{}, after: state.Position{Index: v.Index(), Ordinal: ^uint32(0)}}
	if p := req.GetAfter(); p != nil {
		w.after = state.Position{Index: p.GetIndex(), Ordinal: p.GetOrdinal()}
	}
	if err := w.filter(v, req); err != nil {
		return fault.Wrap("watch", err)
	}
	return request.RefusedSince(ctx, w.run(ctx, req.GetProgress()))
}

// noEvents as the only type asks for progress alone: no event has it.
const noEvents = "none"

// eventTypes are the types that there are.
var eventTypes = []string{ // read-only
	state.EventNodeCreated, state.EventNodeUpdated, state.EventNodeDeleted, state.EventNodeProvision,
	state.EventNodePower, state.EventMaintenance, state.EventNodeOwner, state.EventNodeHandover,
	state.EventNodeWipe, state.EventPortCreated, state.EventPortUpdated, state.EventPortDeleted,
	state.EventFlowOpened, state.EventFlowAdmit, state.EventFlowStep, state.EventFlowAbort,
	state.EventFlowLate, state.EventFlowEdge, state.EventFlowClosed, state.EventLockGranted,
	state.EventLockReleased, state.EventLockBroken, state.EventAgentSession, state.EventAgentDrain,
	state.EventAgentRemoved, state.EventRingEpoch, state.EventClientEnded, state.EventSettings,
	state.EventLevel, state.EventGeneration, state.EventMember, state.EventJoinToken,
	state.EventCertificate,
	state.EventAlarm,
}

// watcher is one open stream. It belongs to the handler's goroutine.
type watcher struct {
	cfg     Config
	stream  *connect.ServerStream[farrierv1.WatchResponse]
	after   state.Position
	nodes   map[node.ID]bool // nil: all
	types   map[string]bool  // empty: all
	relayed <-chan *farrierv1.NodeProgress
	end     context.CancelFunc // of the relay
	seen    map[node.ID]string // the progress sent last
}

func (w *watcher) filter(v *state.View, req *farrierv1.WatchRequest) error {
	if len(req.GetNodes()) > maxNodes || len(req.GetTypes()) > maxTypes {
		return refusal.Invalid("nodes", "at most %d nodes and %d types are allowed; name none to watch all", maxNodes, maxTypes)
	}
	if len(req.GetNodes()) > 0 {
		w.nodes = map[node.ID]bool{}
	}
	for _, name := range req.GetNodes() {
		n, err := message.FindNode(v, name)
		if err != nil && !message.IsUUID(name) { // events of a node that is gone can be watched by its id
			return err
		}
		if err == nil {
			name = string(n.ID)
		}
		w.nodes[node.ID(name)] = true
	}
	for _, t := range req.GetTypes() {
		if t != noEvents && !slices.Contains(eventTypes, t) {
			return refusal.Invalid("types", "there is no event type %q", refusal.Clip(t)).WithHelp("the types are %s", strings.Join(eventTypes, ", "))
		}
		w.types[t] = true
	}
	if w.after.Index > v.Index() {
		return refusal.Invalid("after", "the log ends at %d, before %d", v.Index(), w.after.Index).WithHelp("watch from an index that an event or a list has, or from now")
	}
	return nil
}

func (w *watcher) run(ctx context.Context, progress bool) error {
	wake, stop := w.cfg.Changes.Subscribe()
	defer stop()
	defer w.stopRelay()
	synced := time.NewTicker(w.cfg.SyncedEvery)
	defer synced.Stop()
	look := time.NewTicker(progressEvery)
	defer look.Stop()
	if !progress {
		look.Stop()
	}
	if err := w.events(ctx); err != nil {
		return err
	}
	if err := w.sync(ctx); err != nil { // Watch has just asked the leader
		return err
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
			err = w.events(ctx)
		case <-synced.C:
			err = w.confirm(ctx)
		case <-look.C:
			err = w.progress(ctx)
		case p, ok := <-w.relayed:
			if !ok {
				w.stopRelay()
				continue
			}
			err = w.emit(ctx, &farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Progress{Progress: p}})
		}
		if err != nil {
			return err
		}
	}
}

// events sends all that is newer than the position.
func (w *watcher) events(ctx context.Context) error {
	for {
		v := w.cfg.Desk.View()
		evs, floor, compacted := v.Events(w.after, watchBatch)
		if compacted {
			if err := w.emit(ctx, &farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Compacted{Compacted: positionOut(floor)}}); err != nil {
				return err
			}
			return fault.New(fault.Compacted, "watch", "events up to %d are gone", floor.Index)
		}
		for _, e := range evs {
			w.after = e.Position()
			if !w.wants(e) {
				continue
			}
			if err := w.emit(ctx, &farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Event{Event: eventOut(e)}}); err != nil {
				return err
			}
		}
		if len(evs) < watchBatch {
			if last := (state.Position{Index: v.Index(), Ordinal: ^uint32(0)}); w.after.Less(last) {
				w.after = last
			}
			return nil
		}
	}
}

func (w *watcher) wants(e state.Event) bool {
	return (w.nodes == nil || w.nodes[e.Node]) && (len(w.types) == 0 || w.types[e.Type])
}

// confirm says that all was sent, once the leader has said how much that is. A member that is cut off cannot know: its
// watch ends, and the caller goes on at another one.
func (w *watcher) confirm(ctx context.Context) error {
	_, err := w.cfg.Desk.Read(ctx, false)
	if err == nil {
		err = w.events(ctx)
	}
	if err == nil {
		return w.sync(ctx)
	}
	if leader.Elsewhere(err) {
		err = fault.New(fault.Unavailable, "watch", "%w", err).WithHelp("watch another coordinator, from the position that was sent last")
	}
	return err
}

func (w *watcher) sync(ctx context.Context) error {
	return w.emit(ctx, &farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Synced{Synced: positionOut(w.after)}})
}

func (w *watcher) emit(ctx context.Context, r *farrierv1.WatchResponse) error {
	return request.Send(ctx, func() error { return w.stream.Send(r) })
}

// progress sends what running steps newly said, on the leader from its memory, elsewhere through the relay.
func (w *watcher) progress(ctx context.Context) error {
	if !w.cfg.Desk.Leading() {
		w.relay(ctx)
		return nil
	}
	w.stopRelay()
	v := w.cfg.Desk.View()
	now := map[node.ID]string{}
	var err error
	each := func(n *node.Node) bool {
		if !n.FlowOpen {
			return true
		}
		fid, step, p, ok := w.cfg.Progress(n.ID)
		if !ok || fid != n.Flow {
			return true
		}
		now[n.ID] = fmt.Sprint(fid, step, p.GetDone(), p.GetText())
		if now[n.ID] == w.seen[n.ID] {
			return true
		}
		err = w.emit(ctx, &farrierv1.WatchResponse{Item: &farrierv1.WatchResponse_Progress{Progress: &farrierv1.NodeProgress{
			Node: string(n.ID), Flow: uint64(fid), Step: uint32(max(step, 0)), Progress: p}}})
		return err == nil
	}
	w.eachOpen(v, each)
	w.seen = now
	return err
}

// eachOpen visits the watched nodes with an open flow.
func (w *watcher) eachOpen(v *state.View, fn func(*node.Node) bool) {
	if w.nodes != nil {
		for id := range w.nodes {
			if n, ok := v.Node(id); ok && !fn(n) {
				return
			}
		}
		return
	}
	v.OpenFlows(func(f *flow.Flow) bool {
		n, ok := v.Node(node.ID(f.Node))
		return !ok || fn(n)
	})
}

func positionOut(p state.Position) *farrierv1.Position {
	return &farrierv1.Position{Index: p.Index, Ordinal: p.Ordinal}
}

func eventOut(e state.Event) *farrierv1.Event {
	return &farrierv1.Event{Position: positionOut(e.Position()), Type: e.Type, Node: string(e.Node), NodeName: e.NodeName,
		At: message.Stamp(e.At), Actor: e.Actor, Fields: e.Fields}
}
