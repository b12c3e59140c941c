package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/lab/site"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// group is that of all nodes.
const group = "bench"

// startSite starts coordinators and agents without machines, in a directory of their own.
func (b *bench) startSite(ctx context.Context, cfg site.Config) (*site.Site, error) {
	bin, err := filepath.Abs(b.bin)
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = os.MkdirTemp(b.dir, "site-"); err != nil {
		return nil, err
	}
	if cfg.Agents == 0 {
		cfg.Agents = -1
	}
	if cfg.Profile == "" {
		cfg.Profile = "default"
	}
	cfg.Bin, cfg.Machines, cfg.Group = bin, -1, group
	if !strings.Contains(cfg.CoordinatorSettings, "log:") {
		cfg.CoordinatorSettings += "log: {level: warn}\n"
	}
	cfg.AgentSettings += "log: {level: warn}\n"
	return site.Start(ctx, cfg)
}

func pidsOf(ps []*site.Process) (pids []int) {
	for _, p := range ps {
		if pid := p.PID(); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// leaderOf is the coordinator that leads, and the API addresses of all voters with the leader's first.
func leaderOf(ctx context.Context, s *site.Site) (*site.Process, []string, error) {
	res, err := s.Client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
	if err != nil {
		return nil, nil, err
	}
	var lead *site.Process
	var addresses []string
	for _, m := range res.GetMembers() {
		if m.GetId() != res.GetLeader() {
			addresses = append(addresses, m.GetApiAddress())
			continue
		}
		addresses = append([]string{m.GetApiAddress()}, addresses...)
		for _, p := range s.Coordinators {
			if p.Name == m.GetId() {
				lead = p
			}
		}
	}
	if lead == nil {
		return nil, nil, errors.New("no coordinator leads")
	}
	return lead, addresses, nil
}

// clientsOf makes n clients, each with its own connection and session, that call the leader.
func clientsOf(ctx context.Context, s *site.Site, n int) (clients []*client.Client, closeAll func(), err error) {
	_, addresses, err := leaderOf(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	store, err := identity.OpenStore(s.Operator)
	if err != nil {
		return nil, nil, err
	}
	for range n {
		c, err := client.New(client.Config{Identity: store, Addresses: addresses, Patience: time.Minute})
		if err != nil {
			return nil, nil, err
		}
		clients = append(clients, c)
	}
	return clients, func() {
		for _, c := range clients {
			c.Close()
		}
	}, nil
}

// record is a node of about 1.5 KiB on the wire, with a name of its own.
func record(i int) *farrierv1.Node {
	return &farrierv1.Node{
		Name: fmt.Sprintf("bench-%07d", i), Driver: "fake-hardware", Group: group, ResourceClass: "baremetal.large",
		Properties: map[string]string{"cpus": "64", "memory_mb": "524288", "local_gb": "3840", "cpu_arch": "x86_64", "capabilities": "boot_mode:uefi,rack:r17"},
		Extra:      paddings()[i%len(paddings())],
	}
}

// paddings are made before anything is measured, and shared: nobody changes them.
var paddings = sync.OnceValue(func() []map[string]string { // read-only
	all := make([]map[string]string, 1024)
	const hexDigits = "0123456789abcdef"
	for i := range all {
		all[i] = map[string]string{}
		for k := range 8 {
			r := rand.New(rand.NewPCG(uint64(i), uint64(k)))
			var b strings.Builder
			for range 140 {
				b.WriteByte(hexDigits[r.IntN(16)])
			}
			all[i][fmt.Sprintf("inventory_%d", k)] = b.String()
		}
	}
	return all
})

// createNodes creates nodes from to to, in bulk, and returns their ids in order.
func createNodes(ctx context.Context, c *client.Client, from, to int, node func(int) *farrierv1.Node) ([]string, error) {
	var ids []string
	for from < to {
		req := &farrierv1.CreateNodesRequest{}
		for range min(bulk, to-from) {
			req.Nodes = append(req.Nodes, node(from))
			from++
		}
		res, err := c.Nodes.CreateNodes(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, r := range res.GetResults() {
			if r.GetError() != nil {
				return nil, client.FromDetail(r.GetError())
			}
			ids = append(ids, r.GetId())
		}
	}
	return ids, nil
}

// bulk is how many nodes one CreateNodes carries.
const bulk = 500

// parallel calls fn for 0 to n-1 from some workers, and stops at the first error.
func parallel(ctx context.Context, workers, n int, fn func(ctx context.Context, worker, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := fn(ctx, w, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// setting changes one of the cluster's settings.
func setting(ctx context.Context, s *site.Site, values *farrierv1.Settings, fields ...string) error {
	_, err := s.Client.Cluster.UpdateSettings(ctx, &farrierv1.UpdateSettingsRequest{Settings: values, Mask: &fieldmaskpb.FieldMask{Paths: fields}})
	return err
}

// verbs gives every node a verb, from 64 workers through 8 clients.
func verbs(ctx context.Context, clients []*client.Client, ids []string, verb string, args *farrierv1.DeployArgs) error {
	return parallel(ctx, 64, len(ids), func(ctx context.Context, w, i int) error {
		_, err := clients[w%len(clients)].Nodes.SetProvisionState(ctx, &farrierv1.SetProvisionStateRequest{Node: ids[i], Verb: verb, Deploy: args})
		if err != nil {
			return fmt.Errorf("%s %s: %w", verb, ids[i], err)
		}
		return nil
	})
}

// countIn is how many nodes are in a provision state.
func countIn(ctx context.Context, s *site.Site, state string) (int, error) {
	res, err := s.Client.Nodes.ListNodes(ctx, &farrierv1.ListNodesRequest{PageSize: 1, Stale: true,
		Filter: &farrierv1.NodeFilter{ProvisionState: []string{state}}, Mask: &fieldmaskpb.FieldMask{Paths: []string{"id"}}})
	return int(res.GetTotal()), err
}

// waitIn waits until n nodes are in a provision state; failed says which state means that it went wrong.
func waitIn(ctx context.Context, s *site.Site, state, failed string, n int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		got, err := countIn(ctx, s, state)
		if err != nil {
			return fmt.Errorf("wait for %d nodes in %s: %w", n, state, err)
		}
		if got >= n {
			return nil
		}
		if failed != "" {
			if bad, err := countIn(ctx, s, failed); err != nil || bad > 0 {
				return fmt.Errorf("%d nodes are in %s, %d of %d in %s: %w", bad, failed, got, n, state, err)
			}
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d nodes are in %s: %w", got, n, state, err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
