package watch

import (
	"context"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/node"
)

// relay asks the leader for progress, if it is not being asked already.
func (w *watcher) relay(ctx context.Context) {
	if w.relayed != nil {
		return
	}
	m, ok := w.cfg.Leader.Other()
	if !ok {
		return
	}
	req := progressOf(w.nodes)
	ctx, w.end = context.WithCancel(ctx)
	out := make(chan *farrierv1.NodeProgress, 16)
	w.relayed = out
	go relay(ctx, fc.NewWatchServiceClient(w.cfg.Leader.Client(), "https://"+m.APIAddress), req, out) // stopRelay ends it and waits for it
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
