package steps

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Images fetches images into the cache and verifies them.
type Images interface {
	Fetch(ctx context.Context, url, sha256, format string) error
}

// Courier hands orders to the machines' ramdisks. Deliver repeats harmlessly. Calls do not block.
type Courier interface {
	Deliver(o work.Order)
	Cancel(o work.Order, reason string)
}

// fetchesAtOnce bounds the images that are fetched at the same time.
const fetchesAtOnce = 4

// Relay hands ramdisk steps on. It is safe for concurrent use; Run must be running for images to be fetched.
type Relay struct {
	images   Images
	courier  Courier
	finished func(work.Outcome)
	log      *slog.Logger
	jobs     chan image

	mu      sync.Mutex // guards waiting and queued
	waiting map[image][]work.Order
	queued  []image
}

type image struct{ url, sha256, format string }

// NewRelay makes a Relay. finished is told of orders that failed because their image could not be had.
func NewRelay(images Images, courier Courier, finished func(work.Outcome), log *slog.Logger) *Relay {
	return &Relay{
		images: images, courier: courier, finished: finished, log: log,
		jobs: make(chan image, 1), waiting: make(map[image][]work.Order),
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
		r.courier.Deliver(o)
		return
	}
	img := image{o.Args["url"], o.Args["sha256"], o.Args["format"]}
	r.mu.Lock()
	defer r.mu.Unlock()
	all, known := r.waiting[img]
	for i, w := range all {
		if w.Node == o.Node { // the same order under a newer token, or a newer attempt
			all[i] = o
			return
		}
	}
	r.waiting[img] = append(all, o)
	if !known {
		r.queued = append(r.queued, img)
		r.kick()
	}
}

// kick wakes Run; it is called under mu.
func (r *Relay) kick() {
	if len(r.queued) == 0 {
		return
	}
	select {
	case r.jobs <- r.queued[0]:
		r.queued = r.queued[1:]
	default:
	}
}

// Cancel stops an order, wherever it is.
func (r *Relay) Cancel(o work.Order, reason string) {
	if r.take(o) {
		r.finished(work.Failed(o, fault.New(fault.Aborted, o.Full(), "cancelled: %s", reason)))
		return
	}
	r.courier.Cancel(o, reason)
}

// take removes an order that waits for its image.
func (r *Relay) take(o work.Order) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for img, all := range r.waiting {
		for i, w := range all {
			if w.Ref == o.Ref {
				r.waiting[img] = append(all[:i:i], all[i+1:]...)
				return true
			}
		}
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
				case img := <-r.jobs:
					r.mu.Lock()
					r.kick()
					r.mu.Unlock()
					r.fetch(ctx, img)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	return g.Wait()
}

func (r *Relay) fetch(ctx context.Context, img image) {
	err := r.images.Fetch(ctx, img.url, img.sha256, img.format)
	r.mu.Lock()
	orders := r.waiting[img]
	delete(r.waiting, img)
	r.mu.Unlock()
	if ctx.Err() != nil {
		return // the agent stops: the attempts are open still
	}
	if err != nil {
		r.log.Warn("image not fetched", "sha256", img.sha256, "err", err)
	}
	for _, o := range orders {
		if err != nil {
			r.finished(work.Failed(o, fault.Wrap("fetch image", err)))
			continue
		}
		r.courier.Deliver(o)
	}
}
