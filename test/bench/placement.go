package main

import (
	"context"
	"fmt"
	"time"

	"github.com/farrier-project/farrier/coordinator/ring"
	"github.com/farrier-project/farrier/test/bench/report"
)

// placement places nodes on 10, 100 and 1,000 agents, then kills one agent of a hundred (row 8).
func placement(_ context.Context, b *bench) error {
	worst, extra := 0.0, 0
	var replace time.Duration
	for _, c := range []struct{ agents, nodes int }{{10, 10_000}, {100, 100_000}, {1000, 100_000}} {
		members := make([]ring.Member, c.agents)
		for i := range members {
			members[i] = ring.Member{Agent: fmt.Sprintf("rack-%d", i), Weight: 1}
		}
		loads := map[string]int{}
		load := func(a string) int { return loads[a] }
		owner := make([]string, c.nodes)
		for i := range owner {
			a, ok := ring.Place(nodeID(i), members, load, i+1)
			if !ok {
				return fmt.Errorf("no agent for node %d", i)
			}
			owner[i] = a
			loads[a]++
		}
		top := 0
		for _, n := range loads {
			top = max(top, n)
		}
		worst = max(worst, float64(top)*float64(c.agents)/float64(c.nodes))
		if c.agents != 100 {
			continue
		}
		dead := members[7].Agent
		left := append(append([]ring.Member(nil), members[:7]...), members[8:]...)
		delete(loads, dead)
		before := append([]string(nil), owner...)
		start := time.Now()
		for i, a := range owner {
			if a == dead {
				owner[i], _ = ring.Place(nodeID(i), left, load, c.nodes)
				loads[owner[i]]++
			}
		}
		replace = time.Since(start)
		for i := range owner {
			if owner[i] != before[i] && before[i] != dead {
				extra++
			}
		}
	}
	b.add(report.Figure{Row: 8, Metric: "max/mean, 10 to 1,000 agents", Value: worst, Unit: "x", Anchor: "tooz 2^5: 1.47 at 100, 1.80 at 1,000 (recorded)", Goal: "<= 1.05", Met: report.Met(worst <= 1.05)})
	b.add(report.Figure{Row: 8, Metric: "nodes moved that need not", Value: float64(extra), Unit: "nodes", Goal: "0", Met: report.Met(extra == 0)})
	b.add(report.Figure{Row: 8, Metric: "re-place one agent of 100, 100,000 nodes", Value: float64(replace.Microseconds()) / 1000, Unit: "ms", Goal: "<= 5 ms (50 ms at 1,000,000)", Met: report.Met(replace <= 5*time.Millisecond)})
	return nil
}

func nodeID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", i) }
