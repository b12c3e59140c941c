package steps

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Images fetches images into the cache and verifies them.
type Images interface {
	// Fetch returns when the image is there. Busy: there is no room for it now.
	Fetch(ctx context.Context, url, sha256, format string) error
	// Hold keeps an image, whether it is there yet or not, until Release: a holder holds one.
	Hold(holder, sha256 string)
	Release(holder string)
}

// Courier hands orders to the machines' ramdisks. Deliver repeats harmlessly. Calls do not block.
type Courier interface {
	Deliver(o work.Order)
	Cancel(o work.Order, reason string)
}

// fetchesAtOnce bounds the images that are fetched at the same time.
const fetchesAtOnce = 4

// roomPause is how long a fetch for which there is no room waits before it is tried again.
const roomPause = 10 * time.Second

// Relay hands ramdisk steps on. An image is held in the cache from the order that needs it until that order has ended, and
// fetched as long as an order waits for it. It is safe for concurrent use; Run must be running for images to be fetched.
type Relay struct {
	images   Images
	courier  Courier
	finished func(work.Outcome)
	log      *slog.Logger
	jobs     chan struct{} // a token for each fetcher that may have something to do

	mu     sync.Mutex // guards the fields below
	wanted map[image]*want
	queued []*want             // not begun, oldest first
	held   map[string]work.Ref // by node: the order that its image is held for
}

type image struct{ url, sha256, format string }

// want is an image that is not here yet.
type want struct {
	image
	orders []work.Order
	ctx    context.Context // ends with the last order
	cancel context.CancelFunc
}

// NewRelay makes a Relay. finished is told of orders that failed because their image could not be had.
func NewRelay(images Images, courier Courier, finished func(work.Outcome), log *slog.Logger) *Relay {
	return &Relay{
		images: images, courier: courier, finished: finished, log: log,
		jobs: make(chan struct{}, fetchesAtOnce), wanted: make(map[image]*want), held: make(map[string]work.Ref),
	}
}

// needsImage tells whether the machine asks for the image in the step: it chooses a disk that is large enough, and writes it.
func needsImage(o work.Order) bool {
	switch o.Full() {
	case "deploy.select_disk":
		return o.Args["url"] != ""
	case "deploy.write_image":
		return true
	default:
		return false
	}
}

// Deliver hands an order on, now or when its image is here. One order a node waits, at most.
func (r *Relay) Deliver(o work.Order) {
	if !needsImage(o) {
		r.release(o.Node)
		r.courier.Deliver(o)
		return
	}
	img := image{o.Args["url"], o.Args["sha256"], o.Args["format"]}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[o.Node] = o.Ref
	r.images.Hold(o.Node, img.sha256)
	w := r.wanted[img]
	if w == nil {
		w = &want{image: img}
		w.ctx, w.cancel = context.WithCancel(context.Background())
		r.wanted[img] = w
		r.queued = append(r.queued, w)
		r.kick()
	}
	for i, old := range w.orders {
		if old.Node == o.Node { // the same order under a newer token, or a newer attempt
			w.orders[i] = o
			return
		}
	}
	w.orders = append(w.orders, o)
}

// kick wakes a fetcher; whoever sleeps finds all that is queued.
func (r *Relay) kick() {
	select {
	case r.jobs <- struct{}{}:
	default:
	}
}

// Cancel stops an order, wherever it is.
func (r *Relay) Cancel(o work.Order, reason string) {
	if r.take(func(w work.Order) bool { return w.Ref == o.Ref }) {
		r.Ended(o.Ref)
		r.finished(work.Failed(o, fault.New(fault.Aborted, o.Full(), "cancelled: %s", reason)))
		return
	}
	r.courier.Cancel(o, reason)
}

// Ended says that an order has ended: its image is held no longer.
func (r *Relay) Ended(ref work.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if held, ok := r.held[ref.Node]; ok && held == ref {
		delete(r.held, ref.Node)
		r.images.Release(ref.Node)
	}
}

// Forget drops what is known of a node: it is another agent's, or its boot is over.
func (r *Relay) Forget(node string) {
	r.take(func(w work.Order) bool { return w.Node == node })
	r.release(node)
}

func (r *Relay) release(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.held[node]; ok {
		delete(r.held, node)
		r.images.Release(node)
	}
}

// take removes an order that waits for its image. An image that nobody waits for any more is not fetched further.
func (r *Relay) take(which func(work.Order) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for img, w := range r.wanted {
		i := slices.IndexFunc(w.orders, which)
		if i < 0 {
			continue
		}
		w.orders = slices.Delete(w.orders, i, i+1)
		if len(w.orders) == 0 {
			delete(r.wanted, img)
			w.cancel()
		}
		return true
	}
	return false
}

// Run fetches images until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range fetchesAtOnce {
		g.Go(func() error {
			for {
				select {
				case <-r.jobs:
					for w := r.next(); w != nil; w = r.next() {
						r.fetch(ctx, w)
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	return g.Wait()
}

// next is the oldest image that is not begun and that somebody waits for.
func (r *Relay) next() *want {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queued) > 0 {
		w := r.queued[0]
		if r.queued = r.queued[1:]; w.ctx.Err() == nil {
			return w
		}
	}
	return nil
}

// fetch fetches an image and hands on, or fails, the orders that waited for it.
func (r *Relay) fetch(ctx context.Context, w *want) {
	fctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	err := r.images.Fetch(fctx, w.url, w.sha256, w.format)
	for fault.Is(err, fault.Busy) && sleep(fctx, roomPause) { // those that are written now make room when they end
		err = r.images.Fetch(fctx, w.url, w.sha256, w.format)
	}
	if ctx.Err() != nil {
		return // the agent stops: the attempts are open still
	}
	r.mu.Lock()
	orders := w.orders
	if r.wanted[w.image] == w {
		delete(r.wanted, w.image)
	}
	r.mu.Unlock()
	w.cancel()
	if err != nil && len(orders) > 0 {
		r.log.Warn("image not fetched", "sha256", w.sha256, "err", err)
	}
	for _, o := range orders {
		if err != nil {
			r.Ended(o.Ref)
			r.finished(work.Failed(o, fault.Wrap("fetch image", err)))
			continue
		}
		r.courier.Deliver(o)
	}
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
