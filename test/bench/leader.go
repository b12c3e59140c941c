package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/test/lab/site"
)

// leaderLoss is row 6: kill -9 of the leader, and the time until the next write succeeds.
func leaderLoss(ctx context.Context, b *bench) error {
	kills := 8
	if b.long {
		kills = 30
	}
	for _, c := range []struct {
		profile, election string
		kills             int
		p50, top          time.Duration
	}{
		{"default", "500 ms", kills, 1100 * time.Millisecond, 2 * time.Second},
		{"lan", "300 ms", 8, 700 * time.Millisecond, 1500 * time.Millisecond},
	} {
		took, err := b.killLeaders(ctx, c.profile, c.kills)
		if err != nil {
			return err
		}
		p50, top := percentile(took, 50), slices.Max(took)
		b.add(figure{Row: 6, Metric: fmt.Sprintf("leader killed, next write, %s (%s), p50", c.profile, c.election), Value: p50.Seconds(), Unit: "s",
			Anchor: "Ironic 55-69 s (recorded)", Goal: fmt.Sprintf("<= %g s", c.p50.Seconds()), Met: met(p50 <= c.p50), Note: fmt.Sprintf("kill -9 of the process, %d times", c.kills)})
		b.add(figure{Row: 6, Metric: fmt.Sprintf("the same, %s, max", c.profile), Value: top.Seconds(), Unit: "s", Goal: fmt.Sprintf("<= %g s", c.top.Seconds()), Met: met(top <= c.top)})
	}
	return b.spurious(ctx)
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
	f := figure{Row: 6, Metric: fmt.Sprintf("spurious elections in %v of full load", load), Value: float64(n), Goal: goal,
		Note: fmt.Sprintf("%s lock pairs/s", number(r.PerSecond))}
	if b.long {
		f.Met = met(n <= 1)
	}
	b.add(f)
	return nil
}

func (b *bench) killLeaders(ctx context.Context, profile string, kills int) (took []time.Duration, err error) {
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
	for i := range kills {
		lead, _, err := leaderOf(ctx, s)
		if err != nil {
			return nil, err
		}
		killed := time.Now()
		lead.Kill()
		wctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err = s.Client.Nodes.SetMaintenance(wctx, &farrierv1.SetMaintenanceRequest{Node: ids[0], On: true, Reason: fmt.Sprintf("bench %d", i)})
		cancel()
		if err != nil {
			return nil, fmt.Errorf("write after kill %d: %w", i+1, err)
		}
		took = append(took, time.Since(killed))
		if err := lead.Start(ctx); err != nil {
			return nil, err
		}
		if err := pause(ctx, 2*time.Second); err != nil { // until it follows
			return nil, err
		}
	}
	return took, nil
}
