package client

import (
	"context"
	"errors"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/retry"
)

// awayAfter is how long a watch is opened anew in vain before the coordinators are said to be away: a change of leader
// takes less.
const awayAfter = 3 * time.Second

// Observation says what Observe shows, and to whom. Its functions are called from one goroutine.
type Observation struct {
	Nodes []string                    // names or ids; none: all
	Show  func(*farrierv1.Node) error // each node at once, and after each change or progress of it; an error ends it
	Away  func(error)                 // once each time that coordinators stop answering; may be nil
}

// Observe shows nodes as they change, until ctx ends (ctx's error), Show returns an error (that error), or a node that was
// named is not found. Coordinators that do not answer, have no quorum, or have forgotten where it was end nothing: it goes
// on when they are back, from what is true then. Progress of running steps is filled in.
func (c *Client) Observe(ctx context.Context, o Observation) error {
	if o.Away == nil {
		o.Away = func(error) {}
	}
	w := &observer{c: c, o: o, nodes: map[string]*farrierv1.Node{}}
	for {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !fault.Is(err, fault.Compacted) {
			return err
		}
	}
}

// observer is one Observe.
type observer struct {
	c     *Client
	o     Observation
	nodes map[string]*farrierv1.Node // by id, as shown last
	since time.Time                  // of the first failure of an outage; zero: coordinators answer
	away  bool                       // and Away was told
}

func (w *observer) run(ctx context.Context) error {
	index, ids, err := w.readAll(ctx)
	if err != nil {
		return err
	}
	req := &farrierv1.WatchRequest{Nodes: ids, Progress: true}
	if index > 0 {
		req.After = &farrierv1.Position{Index: index, Ordinal: 1<<32 - 1}
	}
	return w.c.watchOn(ctx, req, func(item *farrierv1.WatchResponse) error {
		w.back()
		if p := item.GetProgress(); p != nil {
			return w.progress(p)
		}
		if e := item.GetEvent(); e != nil && e.GetNode() != "" {
			return w.read(ctx, e.GetNode())
		}
		for _, id := range ids { // synced: what happened between the reads and the watch, and what makes no event
			if err := w.read(ctx, id); err != nil {
				return err
			}
		}
		return nil
	}, w.lost)
}

// readAll reads and shows the nodes. It returns the ids of those that were named, or the index at which all were read.
func (w *observer) readAll(ctx context.Context) (index uint64, ids []string, err error) {
	for _, name := range w.o.Nodes {
		n, err := w.get(ctx, name)
		if err != nil {
			return 0, nil, err
		}
		ids = append(ids, n.GetId())
		if err := w.show(n); err != nil {
			return 0, nil, err
		}
	}
	if len(ids) > 0 {
		return 0, ids, nil
	}
	for token := ""; ; {
		var res *farrierv1.ListNodesResponse
		err := w.persist(ctx, func() (err error) {
			res, err = w.c.Nodes.ListNodes(ctx, &farrierv1.ListNodesRequest{PageSize: 500, PageToken: token, OrderBy: "name"})
			return err
		})
		if err != nil {
			return 0, nil, err
		}
		if index == 0 {
			index = res.GetIndex() // of the first page: later ones are newer
		}
		for _, n := range res.GetNodes() {
			if err := w.show(n); err != nil {
				return 0, nil, err
			}
		}
		if token = res.GetNextPageToken(); token == "" {
			return index, nil, nil
		}
	}
}

// read shows the node as it is now. Of all nodes, one may be gone.
func (w *observer) read(ctx context.Context, id string) error {
	n, err := w.get(ctx, id)
	if fault.Is(err, fault.NotFound) && len(w.o.Nodes) == 0 {
		delete(w.nodes, id)
		return nil
	}
	if err != nil {
		return err
	}
	return w.show(n)
}

func (w *observer) get(ctx context.Context, node string) (n *farrierv1.Node, err error) {
	err = w.persist(ctx, func() error {
		res, err := w.c.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: node})
		n = res.GetNode()
		return err
	})
	return n, err
}

func (w *observer) show(n *farrierv1.Node) error {
	w.nodes[n.GetId()] = n
	return w.o.Show(n)
}

func (w *observer) progress(p *farrierv1.NodeProgress) error {
	n := w.nodes[p.GetNode()]
	f := n.GetFlow()
	if f.GetId() != p.GetFlow() || f.GetState() != "open" {
		return nil
	}
	if int(p.GetStep()) < len(f.GetSteps()) {
		f.Steps[p.GetStep()].Progress = p.GetProgress()
	}
	if f.GetWorking() != nil && f.GetCurrent() == p.GetStep() {
		f.Working.Progress = p.GetProgress()
	}
	return w.o.Show(n)
}

// persist makes a read until it is answered, for better or worse, or ctx ends.
func (w *observer) persist(ctx context.Context, read func() error) error {
	for failures := 1; ; failures++ {
		err := read()
		if err == nil {
			w.back()
			return nil
		}
		f := Fault(err)
		if !repeatable(f.Kind) && f.Kind != fault.Timeout {
			return f
		}
		if ctx.Err() == nil {
			w.tell(f) // the read had its own patience
		}
		if err := (retry.Backoff{}).Sleep(ctx, failures); err != nil {
			return err
		}
	}
}

// lost is told of each watch that could not be opened.
func (w *observer) lost(err error) {
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) >= awayAfter {
		w.tell(err)
	}
}

func (w *observer) tell(err error) {
	if !w.away {
		w.away = true
		w.o.Away(err)
	}
}

func (w *observer) back() { w.since, w.away = time.Time{}, false }

// Follow calls fn with the node at once and after each change or progress of it, and returns the node when it is settled
// (see Settled). It goes on through outages as Observe does. fn is called from one goroutine.
func (c *Client) Follow(ctx context.Context, node string, fn func(*farrierv1.Node)) (*farrierv1.Node, error) {
	settled := errors.New("settled")
	var last *farrierv1.Node
	err := c.Observe(ctx, Observation{Nodes: []string{node}, Show: func(n *farrierv1.Node) error {
		last = n
		fn(n)
		if Settled(n) {
			return settled
		}
		return nil
	}})
	if errors.Is(err, settled) {
		err = nil
	}
	return last, err
}
