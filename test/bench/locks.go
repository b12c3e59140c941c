package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/bench/peer"
	"github.com/farrier-project/farrier/test/bench/report"
	"github.com/farrier-project/farrier/test/bench/usage"
	"github.com/farrier-project/farrier/test/lab/site"
)

const (
	rounds    = 3 // A B A B A B
	lockTime  = 3 * time.Second
	lockNodes = 2048
)

// lockBench is both clusters of rows 1 and 2, three members each.
type lockBench struct {
	site   *site.Site
	etcd   *peer.Etcd
	stream *stream
	ids    []string
}

func (b *bench) startLocks(ctx context.Context) (*lockBench, error) {
	l := &lockBench{}
	var err error
	if l.site, err = b.startSite(ctx, site.Config{}); err != nil {
		return nil, err
	}
	if l.stream, err = b.openStream(ctx, l.site, "bench-a"); err != nil {
		l.stop()
		return nil, err
	}
	if l.ids, err = lockable(ctx, l.site); err == nil {
		l.etcd, err = peer.StartEtcd(b.dir, !b.plain)
	}
	if err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// lockable creates the nodes whose locks are taken.
func lockable(ctx context.Context, s *site.Site) ([]string, error) {
	return createNodes(ctx, s.Client, 0, lockNodes, func(i int) *farrierv1.Node {
		return &farrierv1.Node{Name: fmt.Sprintf("lock-%d", i), Driver: "fake-hardware", Group: group}
	})
}

func (l *lockBench) stop() {
	if l.stream != nil {
		l.stream.close()
	}
	if l.etcd != nil {
		l.etcd.Stop()
	}
	l.site.Close()
}

// measurePairs has workers do pairs for a time: rate, CPU of all members and this process per pair, latencies.
func measurePairs(ctx context.Context, pids []int, workers int, d time.Duration, pair func(ctx context.Context, worker int) error) (peer.Pairs, error) {
	lat := make([][]time.Duration, workers)
	errs := make([]error, workers)
	m, err := usage.Start(pids)
	if err != nil {
		return peer.Pairs{}, err
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for m.Running() < d && errs[w] == nil {
				t := time.Now()
				errs[w] = pair(ctx, w)
				lat[w] = append(lat[w], time.Since(t))
			}
		})
	}
	wg.Wait()
	took, used, err := m.Stop()
	for _, e := range append(errs, err) {
		if e != nil {
			return peer.Pairs{}, e
		}
	}
	all := slices.Concat(lat...)
	n := float64(len(all))
	return peer.Pairs{PerSecond: n / took.Seconds(), Count: n, P50: float64(report.Percentile(all, 50).Microseconds()),
		P99: float64(report.Percentile(all, 99).Microseconds()), CPU: float64(used.Microseconds()) / n}, nil
}

func (l *lockBench) streamPairs(ctx context.Context, workers int) (peer.Pairs, error) {
	return l.stream.pairs(ctx, l.site, l.ids[:workers], lockTime)
}

// pairs has one worker for each node take and release its lock over the stream.
func (st *stream) pairs(ctx context.Context, s *site.Site, ids []string, d time.Duration) (peer.Pairs, error) {
	holders := make([]*holder, len(ids))
	for i := range holders {
		holders[i] = st.holder(i, ids[i])
	}
	return measurePairs(ctx, pidsOf(s.Coordinators), len(ids), d, func(ctx context.Context, w int) error { return holders[w].pair(ctx) })
}

func (l *lockBench) unaryPairs(ctx context.Context, clients []*client.Client, workers int) (peer.Pairs, error) {
	return measurePairs(ctx, pidsOf(l.site.Coordinators), workers, lockTime, func(ctx context.Context, w int) error {
		c := clients[w%len(clients)]
		res, err := c.Locks.AcquireLock(ctx, &farrierv1.AcquireLockRequest{Node: l.ids[w], Purpose: "bench"})
		if err != nil {
			return err
		}
		_, err = c.Locks.ReleaseLock(ctx, &farrierv1.ReleaseLockRequest{Node: l.ids[w], Token: res.GetLock().GetToken()})
		return err
	})
}

// turns runs ours and the anchor's in turn and returns the medians of each. The first turns do not count: memory that a
// process touches for the first time is the kernel's work.
func turns(ours, anchor func() (peer.Pairs, error)) (a, b peer.Pairs, err error) {
	if _, err = ours(); err == nil {
		_, err = anchor()
	}
	if err != nil {
		return a, b, err
	}
	var as, bs []peer.Pairs
	for range rounds {
		r, err := ours()
		if err != nil {
			return a, b, err
		}
		as = append(as, r)
		if r, err = anchor(); err != nil {
			return a, b, err
		}
		bs = append(bs, r)
	}
	return medians(as), medians(bs), nil
}

func medians(rs []peer.Pairs) peer.Pairs {
	pick := func(f func(peer.Pairs) float64) float64 {
		var v []float64
		for _, r := range rs {
			v = append(v, f(r))
		}
		return report.Median(v)
	}
	return peer.Pairs{
		PerSecond: pick(func(r peer.Pairs) float64 { return r.PerSecond }), Count: pick(func(r peer.Pairs) float64 { return r.Count }),
		P50: pick(func(r peer.Pairs) float64 { return r.P50 }), P99: pick(func(r peer.Pairs) float64 { return r.P99 }),
		CPU: pick(func(r peer.Pairs) float64 { return r.CPU }),
	}
}

// locks is row 1: acquire and release by 2,048 and 256 workers, each on its own node.
func locks(ctx context.Context, b *bench) error {
	l, err := b.startLocks(ctx)
	if err != nil {
		return err
	}
	defer l.stop()
	clients, closeAll, err := clientsOf(ctx, l.site, 8) // as many connections as the anchor has
	if err != nil {
		return err
	}
	defer closeAll()
	for _, c := range []struct {
		workers    int
		rate, less float64
		ours       func() (peer.Pairs, error)
		way        string
	}{
		{2048, 10, 6, func() (peer.Pairs, error) { return l.streamPairs(ctx, 2048) }, "one stream"},
		{256, 4, 5, func() (peer.Pairs, error) { return l.streamPairs(ctx, 256) }, "one stream"},
		{256, 1.8, 0, func() (peer.Pairs, error) { return l.unaryPairs(ctx, clients, 256) }, "unary"},
	} {
		a, e, err := turns(c.ours, func() (peer.Pairs, error) { return l.etcd.LockPairs(ctx, c.workers, lockTime.Seconds()) })
		if err != nil {
			return err
		}
		name := fmt.Sprintf("lock pairs, %d workers, %s", c.workers, c.way)
		ratio := a.PerSecond / e.PerSecond
		b.add(report.Figure{Row: 1, Metric: name, Value: a.PerSecond, Unit: "/s", Anchor: "etcd " + report.Number(e.PerSecond) + "/s", Ratio: ratio,
			Goal: fmt.Sprintf(">= %gx", c.rate), Met: report.Met(ratio >= c.rate),
			Note: fmt.Sprintf("p50 %s ms, p99 %s ms; etcd p50 %s ms, p99 %s ms", report.Number(a.P50/1000), report.Number(a.P99/1000), report.Number(e.P50/1000), report.Number(e.P99/1000))})
		f := report.Figure{Row: 1, Metric: "CPU of a pair, members and client", Value: a.CPU, Unit: "us", Anchor: "etcd " + report.Number(e.CPU) + " us", Ratio: a.CPU / e.CPU, Goal: "reported"}
		if c.less > 0 {
			f.Goal, f.Met = fmt.Sprintf("<= %.2fx", 1/c.less), report.Met(e.CPU/a.CPU >= c.less)
		}
		b.add(f)
	}
	return nil
}

// latency is row 2: one client alone.
func latency(ctx context.Context, b *bench) error {
	l, err := b.startLocks(ctx)
	if err != nil {
		return err
	}
	defer l.stop()
	floor, err := fsyncProbe(b.dir, 500)
	if err != nil {
		return err
	}
	a, e, err := turns(func() (peer.Pairs, error) { return l.streamPairs(ctx, 1) },
		func() (peer.Pairs, error) { return l.etcd.LockPairs(ctx, 1, lockTime.Seconds()) })
	if err != nil {
		return err
	}
	b.add(report.Figure{Row: 2, Metric: "lock pair, one client, p50", Value: a.P50 / 1000, Unit: "ms", Anchor: "etcd " + report.Number(e.P50/1000) + " ms", Ratio: a.P50 / e.P50,
		Goal: "reported (raft-boltdb); <= 0.8x would be fine", Met: report.Met(a.P50 <= 0.8*e.P50),
		Note: fmt.Sprintf("a pair is two commits; append of 4 KiB and fdatasync here, one file, p50: %s ms", report.Number(ms(floor)))})
	b.add(report.Figure{Row: 2, Metric: "lock pair, one client, p99", Value: a.P99 / 1000, Unit: "ms", Anchor: "etcd " + report.Number(e.P99/1000) + " ms", Ratio: a.P99 / e.P99,
		Goal: "<= 5x p50", Met: report.Met(a.P99 <= 5*a.P50)})
	return nil
}
