package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
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
	etcd   *etcdCluster
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
		l.etcd, err = startEtcd(b.dir, !b.plain)
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
		l.etcd.stop()
	}
	l.site.Close()
}

// measurePairs has workers do pairs for a time: rate, CPU of all members and this process per pair, latencies.
func measurePairs(ctx context.Context, pids []int, workers int, d time.Duration, pair func(ctx context.Context, worker int) error) (pairResult, error) {
	lat := make([][]time.Duration, workers)
	errs := make([]error, workers)
	m, err := startMeter(pids)
	if err != nil {
		return pairResult{}, err
	}
	until := m.start.Add(d)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for time.Now().Before(until) && errs[w] == nil {
				t := time.Now()
				errs[w] = pair(ctx, w)
				lat[w] = append(lat[w], time.Since(t))
			}
		})
	}
	wg.Wait()
	took, used, err := m.stop()
	for _, e := range append(errs, err) {
		if e != nil {
			return pairResult{}, e
		}
	}
	all := slices.Concat(lat...)
	n := float64(len(all))
	return pairResult{PerSecond: n / took.Seconds(), Pairs: n, P50: float64(percentile(all, 50).Microseconds()),
		P99: float64(percentile(all, 99).Microseconds()), CPU: float64(used.Microseconds()) / n}, nil
}

func (l *lockBench) streamPairs(ctx context.Context, workers int) (pairResult, error) {
	return l.stream.pairs(ctx, l.site, l.ids[:workers], lockTime)
}

// pairs has one worker for each node take and release its lock over the stream.
func (st *stream) pairs(ctx context.Context, s *site.Site, ids []string, d time.Duration) (pairResult, error) {
	holders := make([]*holder, len(ids))
	for i := range holders {
		holders[i] = st.holder(i, ids[i])
	}
	return measurePairs(ctx, pidsOf(s.Coordinators), len(ids), d, func(ctx context.Context, w int) error { return holders[w].pair(ctx) })
}

func (l *lockBench) unaryPairs(ctx context.Context, clients []*client.Client, workers int) (pairResult, error) {
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
func turns(ours, anchor func() (pairResult, error)) (a, b pairResult, err error) {
	if _, err = ours(); err == nil {
		_, err = anchor()
	}
	if err != nil {
		return a, b, err
	}
	var as, bs []pairResult
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

func medians(rs []pairResult) pairResult {
	pick := func(f func(pairResult) float64) float64 {
		var v []float64
		for _, r := range rs {
			v = append(v, f(r))
		}
		return median(v)
	}
	return pairResult{
		PerSecond: pick(func(r pairResult) float64 { return r.PerSecond }), Pairs: pick(func(r pairResult) float64 { return r.Pairs }),
		P50: pick(func(r pairResult) float64 { return r.P50 }), P99: pick(func(r pairResult) float64 { return r.P99 }),
		CPU: pick(func(r pairResult) float64 { return r.CPU }),
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
		ours       func() (pairResult, error)
		way        string
	}{
		{2048, 10, 6, func() (pairResult, error) { return l.streamPairs(ctx, 2048) }, "one stream"},
		{256, 4, 5, func() (pairResult, error) { return l.streamPairs(ctx, 256) }, "one stream"},
		{256, 1.8, 0, func() (pairResult, error) { return l.unaryPairs(ctx, clients, 256) }, "unary"},
	} {
		a, e, err := turns(c.ours, func() (pairResult, error) { return l.etcd.lockPairs(ctx, c.workers, lockTime.Seconds()) })
		if err != nil {
			return err
		}
		name := fmt.Sprintf("lock pairs, %d workers, %s", c.workers, c.way)
		ratio := a.PerSecond / e.PerSecond
		b.add(figure{Row: 1, Metric: name, Value: a.PerSecond, Unit: "/s", Anchor: "etcd " + number(e.PerSecond) + "/s", Ratio: ratio,
			Goal: fmt.Sprintf(">= %gx", c.rate), Met: met(ratio >= c.rate),
			Note: fmt.Sprintf("p50 %s ms, p99 %s ms; etcd p50 %s ms, p99 %s ms", number(a.P50/1000), number(a.P99/1000), number(e.P50/1000), number(e.P99/1000))})
		f := figure{Row: 1, Metric: "CPU of a pair, members and client", Value: a.CPU, Unit: "us", Anchor: "etcd " + number(e.CPU) + " us", Ratio: a.CPU / e.CPU, Goal: "reported"}
		if c.less > 0 {
			f.Goal, f.Met = fmt.Sprintf("<= %.2fx", 1/c.less), met(e.CPU/a.CPU >= c.less)
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
	a, e, err := turns(func() (pairResult, error) { return l.streamPairs(ctx, 1) },
		func() (pairResult, error) { return l.etcd.lockPairs(ctx, 1, lockTime.Seconds()) })
	if err != nil {
		return err
	}
	b.add(figure{Row: 2, Metric: "lock pair, one client, p50", Value: a.P50 / 1000, Unit: "ms", Anchor: "etcd " + number(e.P50/1000) + " ms", Ratio: a.P50 / e.P50,
		Goal: "reported (raft-boltdb); <= 0.8x would be fine", Met: met(a.P50 <= 0.8*e.P50),
		Note: fmt.Sprintf("a pair is two commits; append of 4 KiB and fdatasync here, one file, p50: %s ms", number(ms(floor)))})
	b.add(figure{Row: 2, Metric: "lock pair, one client, p99", Value: a.P99 / 1000, Unit: "ms", Anchor: "etcd " + number(e.P99/1000) + " ms", Ratio: a.P99 / e.P99,
		Goal: "<= 5x p50", Met: met(a.P99 <= 5*a.P50)})
	return nil
}
