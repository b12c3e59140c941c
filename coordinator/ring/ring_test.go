package ring

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func agents(n int) []Member {
	m := make([]Member, n)
	for i := range m {
		m[i] = Member{Agent: fmt.Sprintf("agent-%d", i), Weight: 1}
	}
	return m
}

func nodeID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", i) }

// cluster is a model of what state keeps: the owner of each node.
type cluster struct {
	owner map[string]string
	load  map[string]int
}

func newCluster() *cluster { return &cluster{owner: map[string]string{}, load: map[string]int{}} }

func (c *cluster) place(t testing.TB, id string, members []Member, total int) {
	agent, ok := Place(id, members, func(a string) int { return c.load[a] }, total)
	if !ok {
		t.Fatalf("no agent for %s", id)
	}
	c.owner[id] = agent
	c.load[agent]++
}

func (c *cluster) spread(t *testing.T, members []Member, what string) {
	t.Helper()
	most, sum := 0, 0
	for _, m := range members {
		most = max(most, c.load[m.Agent])
		sum += c.load[m.Agent]
	}
	if most*len(members)*100 > sum*105 {
		t.Errorf("%s: max %d of mean %d/%d, over 1.05", what, most, sum, len(members))
	}
}

// 100 nodes an agent, all placed one by one; then an agent dies and its nodes alone are placed again.
func TestBalanceAndDeath(t *testing.T) {
	for _, n := range []int{10, 30, 100} {
		c, members, nodes := newCluster(), agents(n), n*100
		for i := range nodes {
			c.place(t, nodeID(i), members, i+1)
		}
		c.spread(t, members, fmt.Sprintf("%d agents", n))

		dead := members[n/2].Agent
		members = slices.Delete(slices.Clone(members), n/2, n/2+1)
		moved := 0
		for i := range nodes {
			if c.owner[nodeID(i)] == dead {
				c.place(t, nodeID(i), members, nodes)
				moved++
			}
		}
		if moved != c.load[dead] {
			t.Errorf("%d agents: %d moves for the %d nodes of the dead", n, moved, c.load[dead])
		}
		c.spread(t, members, fmt.Sprintf("%d agents after a death", n))
	}
}

func TestBalanceAtThousand(t *testing.T) {
	c, members := newCluster(), agents(1000)
	for i := range 20_000 { // 20 each: the cap of ceil(20.4) = 21 is 1.05
		c.place(t, nodeID(i), members, 20_000)
	}
	c.spread(t, members, "1000 agents")
}

func TestWeights(t *testing.T) {
	c := newCluster()
	members := []Member{{"small", 1}, {"big", 3}, {"unset", 0}}
	for i := range 5000 {
		c.place(t, nodeID(i), members, i+1)
	}
	for agent, want := range map[string]int{"small": 1000, "big": 3000, "unset": 1000} {
		if got := c.load[agent]; got*100 > want*103 || got*100 < want*94 {
			t.Errorf("%s has %d nodes, want about %d", agent, got, want)
		}
	}
}

func TestOrderIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := agents(rapid.IntRange(1, 12).Draw(t, "agents"))
		for i := range members {
			members[i].Weight = rapid.Uint32Range(0, 5).Draw(t, "weight")
		}
		id := rapid.StringN(1, 40, 40).Draw(t, "id")
		order := Order(id, members)
		shuffled := rapid.Permutation(members).Draw(t, "shuffled")
		if got := Order(id, shuffled); !slices.Equal(got, order) {
			t.Fatalf("the order depends on the members' order: %v, %v", order, got)
		}
		gone := rapid.IntRange(0, len(members)-1).Draw(t, "gone")
		rest := slices.Delete(slices.Clone(members), gone, gone+1)
		want := slices.DeleteFunc(slices.Clone(order), func(a string) bool { return a == members[gone].Agent })
		if got := Order(id, rest); !slices.Equal(got, want) {
			t.Fatalf("without %s: %v, want %v", members[gone].Agent, got, want)
		}
	})
}

// These pins hold for ever: another order would place nodes differently on members of different versions.
func TestOrderIsPinned(t *testing.T) {
	members := []Member{{"rack1-a", 1}, {"rack1-b", 2}, {"rack1-c", 1}}
	for id, want := range map[string][]string{
		"1be26c0b-03f2-4d2e-ae87-c02d7f33c123": {"rack1-c", "rack1-b", "rack1-a"},
		"4a5c0c54-6d10-4d3b-8b9a-5f0f1ff6a9f8": {"rack1-a", "rack1-b", "rack1-c"},
		"node":                                 {"rack1-b", "rack1-c", "rack1-a"},
	} {
		if got := Order(id, members); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}

func TestCap(t *testing.T) {
	for _, c := range []struct {
		nodes         int
		weight, total uint64
		want          int
	}{
		{0, 1, 1, 0}, {1, 1, 1, 2}, {1, 1, 10, 1}, {100, 1, 1, 102}, {100, 1, 2, 51}, {1000, 3, 5, 612}, {10, 0, 5, 0},
		{1_000_000, 1, 1000, 1020},
	} {
		if got := Cap(c.nodes, c.weight, c.total); got != c.want {
			t.Errorf("Cap(%d, %d, %d) = %d, want %d", c.nodes, c.weight, c.total, got, c.want)
		}
	}
}

func TestPlace(t *testing.T) {
	none := func(string) int { return 0 }
	if agent, ok := Place("n", nil, none, 1); ok {
		t.Errorf("placed at %q without agents", agent)
	}
	members := agents(3)
	order := Order("n", members)
	if got, _ := Place("n", members, none, 1); got != order[0] {
		t.Errorf("an empty ring places at %s, want %s", got, order[0])
	}
	full := func(a string) int {
		if a == order[0] {
			return 34
		}
		return 33
	}
	if got, _ := Place("n", members, full, 100); got != order[1] {
		t.Errorf("over the cap: %s, want %s", got, order[1])
	}
	// Everybody is over the cap: the least loaded for its weight.
	over := func(a string) int { return map[string]int{order[0]: 50, order[1]: 49, order[2]: 48}[a] }
	if got, _ := Place("n", members, over, 3); got != order[2] {
		t.Errorf("all over the cap: %s, want %s", got, order[2])
	}
}

// Place looks for what Explain shows.
func TestPlaceIsExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := agents(rapid.IntRange(1, 8).Draw(t, "agents"))
		loads := map[string]int{}
		for i := range members {
			members[i].Weight = rapid.Uint32Range(1, 3).Draw(t, "weight")
			loads[members[i].Agent] = rapid.IntRange(0, 30).Draw(t, "load")
		}
		id, total := rapid.StringN(1, 8, 8).Draw(t, "id"), rapid.IntRange(1, 200).Draw(t, "total")
		load := func(a string) int { return loads[a] }
		got, _ := Place(id, members, load, total)
		candidates := Explain(id, members, load, total)
		if i := slices.IndexFunc(candidates, Candidate.Below); i >= 0 {
			if got != candidates[i].Agent {
				t.Fatalf("placed at %s, the first below its cap is %s", got, candidates[i].Agent)
			}
			return
		}
		chosen := candidates[slices.IndexFunc(candidates, func(c Candidate) bool { return c.Agent == got })]
		for _, c := range candidates {
			if c.lighter(chosen) {
				t.Fatalf("placed at %+v though %+v is lighter", chosen, c)
			}
		}
	})
}

func BenchmarkPlaceOfHundred(b *testing.B) {
	members := agents(100)
	for i := range b.N {
		Place(nodeID(i), members, func(string) int { return 0 }, 10_000)
	}
}
