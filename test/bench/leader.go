package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/test/bench/report"
	"github.com/farrier-project/farrier/test/lab/site"
)

// leaderLoss is row 6: kill -9 of the leader, and the time until the next write succeeds. A process that ends is seen by its
// connections; one that is stopped, as a machine that lost its power, only by the election timeout.
func leaderLoss(ctx context.Context, b *bench) error {
	kills := 8
	if b.long {
		kills = 30
	}
	for _, c := range []struct {
		profile, election string
		loss              leaderEnd
		times             int
		p50, top          time.Duration // 0: reported
	}{
		{"default", "500 ms", killed, kills, 1100 * time.Millisecond, 2 * time.Second},
		{"lan", "300 ms", killed, 8, 700 * time.Millisecond, 1500 * time.Millisecond},
		{"default", "500 ms", stopped, 8, 0, 0},
		{"lan", "300 ms", stopped, 8, 0, 0},
	} {
		took, err := b.loseLeaders(ctx, c.profile, c.loss, c.times)
		if err != nil {
			return err
		}
		b.within(report.Figure{Row: 6, Metric: fmt.Sprintf("leader %s, next write, %s (%s), p50", c.loss.how, c.profile, c.election), Value: report.Percentile(took, 50).Seconds(),
			Unit: "s", Anchor: "Ironic 55-69 s (recorded)", Note: fmt.Sprintf("%s, %d times", c.loss.by, c.times)}, c.p50)
		b.within(report.Figure{Row: 6, Metric: fmt.Sprintf("the same, %s, max", c.profile), Value: slices.Max(took).Seconds(), Unit: "s"}, c.top)
	}
	return b.spurious(ctx)
}

// within adds a figure of seconds with its goal; 0 is none.
func (b *bench) within(f report.Figure, goal time.Duration) {
	f.Goal = "reported"
	if goal > 0 {
		f.Goal, f.Met = fmt.Sprintf("<= %g s", goal.Seconds()), report.Met(f.Value <= goal.Seconds())
	}
	b.add(f)
}

// spurious counts the elections while lock pairs of 2,048 workers keep all members at their limit.
func (b *bench) spurious(ctx context.Context) error {
	load, goal := 30*time.Second, "reported; LONG=1: <= 1 in 10 min"
	if b.long {
		load, goal = 10*time.Minute, "<= 1"
	}
	s, err := b.startSite(ctx, site.Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := b.openStream(ctx, s, "bench-a")
	if err != nil {
		return err
	}
	defer st.close()
	ids, err := lockable(ctx, s)
	if err != nil {
		return err
	}
	before, err := s.Client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
	if err != nil {
		return err
	}
	r, err := st.pairs(ctx, s, ids, load)
	if err != nil {
		return st.why(err)
	}
	after, err := s.Client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
	if err != nil {
		return err
	}
	n := after.GetTerm() - before.GetTerm()
	f := report.Figure{Row: 6, Metric: fmt.Sprintf("spurious elections in %v of full load", load), Value: float64(n), Goal: goal,
		Note: fmt.Sprintf("%s lock pairs/s", report.Number(r.PerSecond))}
	if b.long {
		f.Met = report.Met(n <= 1)
	}
	b.add(f)
	return nil
}

// leaderEnd is how a leader is lost, and comes back.
type leaderEnd struct {
	how, by string
	lose    func(*site.Process)
	back    func(*site.Process, context.Context) error
}

var (
	killed  = leaderEnd{"killed", "kill -9 of the process", (*site.Process).Kill, (*site.Process).Start}
	stopped = leaderEnd{"silent", "kill -STOP of the process: no connection ends", (*site.Process).Pause, func(p *site.Process, _ context.Context) error { p.Resume(); return nil }}
)

func (b *bench) loseLeaders(ctx context.Context, profile string, loss leaderEnd, times int) (took []time.Duration, err error) {
	s, err := b.startSite(ctx, site.Config{Profile: profile})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	st, err := b.openStream(ctx, s, "bench-a") // who owns the node
	if err != nil {
		return nil, err
	}
	ids, err := createNodes(ctx, s.Client, 0, 1, record)
	st.close()
	if err != nil {
		return nil, err
	}
	for i := range times {
		lead, _, err := leaderOf(ctx, s)
		if err != nil {
			return nil, err
		}
		from := time.Now()
		loss.lose(lead)
		wctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err = s.Client.Nodes.SetMaintenance(wctx, &farrierv1.SetMaintenanceRequest{Node: ids[0], On: true, Reason: fmt.Sprintf("bench %d", i)})
		cancel()
		if err != nil {
			return nil, fmt.Errorf("write after loss %d: %w", i+1, err)
		}
		took = append(took, time.Since(from))
		if err := loss.back(lead, ctx); err != nil {
			return nil, err
		}
		if err := pause(ctx, 2*time.Second); err != nil { // until it follows
			return nil, err
		}
	}
	return took, nil
}
