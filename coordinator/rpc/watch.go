package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
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

// watchService implements WatchService.
type watchService struct{ *API }

// Watch implements WatchService. Any member serves it from its own state, in the order of the log; progress, which
// is in the leader's memory only, is relayed from there.
func (s watchService) Watch(ctx context.Context, req *farrierv1.WatchRequest, stream *connect.ServerStream[farrierv1.WatchResponse]) error {
	if s.watchers.Add(1) > int64(s.MaxWatchers) {
		s.watchers.Add(-1)
		return fault.New(fault.Busy, "watch", "this coordinator has its %d watchers", s.MaxWatchers).WithHelp("watch another coordinator")
	}
	defer s.watchers.Add(-1)
	ctx, stop := s.desk.Hold(ctx)
	defer stop()
	// A member that has just started may lack what the caller has seen elsewhere: wait for it.
	v, err := s.desk.Read(ctx, false)
	if err != nil {
		return fault.Wrap("watch", err)
	}
	w := &watcher{api: s.API, stream: stream, types: map[string]bool{}, after: state.Position{Index: v.Index(), Ordinal: ^uint32(0)}}
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
	api     *API
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
	wake, stop := w.api.Changes.Subscribe()
	defer stop()
	defer w.stopRelay()
	synced := time.NewTicker(w.api.SyncedEvery)
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
		v := w.api.Reader.View()
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
	_, err := w.api.desk.Read(ctx, false)
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
	if _, leading := w.api.Reader.Leading(); !leading {
		w.relay(ctx)
		return nil
	}
	w.stopRelay()
	v := w.api.Reader.View()
	now := map[node.ID]string{}
	var err error
	each := func(n *node.Node) bool {
		if !n.FlowOpen {
			return true
		}
		fid, step, p, ok := w.api.Progress.Progress(n.ID)
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

// relay asks the leader for progress, if it is not being asked already.
func (w *watcher) relay(ctx context.Context) {
	if w.relayed != nil {
		return
	}
	m, ok := w.api.leader.Other()
	if !ok {
		return
	}
	req := progressOf(w.nodes)
	ctx, w.end = context.WithCancel(ctx)
	out := make(chan *farrierv1.NodeProgress, 16)
	w.relayed = out
	go relay(ctx, fc.NewWatchServiceClient(w.api.leader.Client(), "https://"+m.APIAddress), req, out) // stopRelay ends it and waits for it
}

// progressOf asks for the progress of nodes, nil for all, and for no events.
func progressOf(nodes map[node.ID]bool) *farrierv1.WatchRequest {
	req := &farrierv1.WatchRequest{Progress: true, Types: []string{noEvents}}
	for id := range nodes {
		req.Nodes = append(req.Nodes, string(id))
	}
	return req
}

// stopRelay ends the relay and waits until it is gone.
func (w *watcher) stopRelay() {
	if w.relayed == nil {
		return
	}
	w.end()
	for range w.relayed { // until relay closes it
	}
	w.relayed = nil
}

// relay copies progress from the leader until the stream ends.
func relay(ctx context.Context, c fc.WatchServiceClient, req *farrierv1.WatchRequest, out chan<- *farrierv1.NodeProgress) {
	defer close(out)
	stream, err := c.Watch(ctx, req)
	if err != nil {
		return
	}
	defer stream.Close()
	for stream.Receive() {
		p := stream.Msg().GetProgress()
		if p == nil {
			continue
		}
		select {
		case out <- p:
		case <-ctx.Done():
			return
		}
	}
}

func positionOut(p state.Position) *farrierv1.Position {
	return &farrierv1.Position{Index: p.Index, Ordinal: p.Ordinal}
}

func eventOut(e state.Event) *farrierv1.Event {
	return &farrierv1.Event{Position: positionOut(e.Position()), Type: e.Type, Node: string(e.Node), NodeName: e.NodeName,
		At: message.Stamp(e.At), Actor: e.Actor, Fields: e.Fields}
}
