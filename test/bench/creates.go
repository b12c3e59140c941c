package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/bench/peer"
	"github.com/farrier-project/farrier/test/bench/report"
	"github.com/farrier-project/farrier/test/bench/usage"
	"github.com/farrier-project/farrier/test/lab/site"
)

// Ironic's figures on a machine of this kind: POST of a node, deploy with everything fake, heartbeat.
const (
	ironicCreates, ironicCreateCPU = 103.0, 18.3 // per second, CPU-ms
	ironicDeploys, ironicDeployCPU = 8.2, 111.0
	ironicBeats, ironicBeatCPU     = 11.4, 34.0
	ironicFailover                 = 79.0     // seconds until a dead conductor's nodes are usable, the best seen
	recordedInserts                = 11_000.0 // of PostgreSQL, per second, beside them
	createTime                     = 3 * time.Second
	createClients                  = 64
	bulkCalls                      = 8
)

// creates is row 3: nodes of 1.5 KiB, durable on three members, one by one and in bulk.
func creates(ctx context.Context, b *bench) error {
	s, err := b.startSite(ctx, site.Config{})
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := b.openStream(ctx, s, "bench-a") // who owns the nodes
	if err != nil {
		return err
	}
	defer st.close()
	dir, err := os.MkdirTemp(os.TempDir(), "farrier-bench-postgres-") // which runs as another user
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pg, err := peer.StartPostgres(dir)
	if err != nil {
		return err
	}
	defer pg.Stop()
	clients, closeAll, err := clientsOf(ctx, s, 8)
	if err != nil {
		return err
	}
	defer closeAll()
	var next atomic.Int64
	one := func() (peer.Pairs, error) {
		return measurePairs(ctx, pidsOf(s.Coordinators), createClients, createTime, func(ctx context.Context, w int) error {
			_, err := clients[w%len(clients)].Nodes.CreateNode(ctx, &farrierv1.CreateNodeRequest{Node: record(int(next.Add(1)) - 1)})
			return err
		})
	}
	many := func() (peer.Pairs, error) { return bulkCreates(ctx, s, clients, &next) }
	var inserts []float64
	insert := func() (peer.Pairs, error) {
		tps, err := pg.Inserts(createClients, int(createTime.Seconds()))
		inserts = append(inserts, tps)
		return peer.Pairs{PerSecond: tps}, err
	}
	a, _, err := turns(one, insert)
	if err != nil {
		return st.why(err)
	}
	m, _, err := turns(many, insert)
	if err != nil {
		return st.why(err)
	}
	floor, err := rpcProbe(ctx, createClients, len(clients), createTime)
	if err != nil {
		return err
	}
	b.addCreates(a, m, floor, report.Median(inserts))
	return nil
}

// addCreates sets creates beside Ironic's recorded figures: as they are, and at this machine's speed, which is how
// PostgreSQL does here against what it did on the machine where Ironic's were recorded.
func (b *bench) addCreates(a, m, floor peer.Pairs, rows float64) {
	speed := rows / recordedInserts
	for _, at := range []struct {
		name  string
		speed float64
	}{{"recorded", 1}, {fmt.Sprintf("recorded, at %.2fx speed", speed), speed}} {
		rate, cost := ironicCreates*at.speed, ironicCreateCPU/at.speed
		ironic := func(v float64, unit string) string {
			return fmt.Sprintf("Ironic %s%s (%s)", report.Number(v), unit, at.name)
		}
		b.add(report.Figure{Row: 3, Metric: "node create, unary, 64 clients", Value: a.PerSecond, Unit: "/s", Anchor: ironic(rate, "/s"), Ratio: a.PerSecond / rate, Goal: ">= 50x", Met: report.Met(a.PerSecond >= 50*rate),
			Note: fmt.Sprintf("%d bytes a record; p50 %s ms, p99 %s ms", proto.Size(record(1)), report.Number(a.P50/1000), report.Number(a.P99/1000))})
		b.add(report.Figure{Row: 3, Metric: "CPU of a create, members and client", Value: a.CPU / 1000, Unit: "ms", Anchor: ironic(cost, " ms"), Ratio: a.CPU / 1000 / cost, Goal: "<= 0.017x (60x less)", Met: report.Met(a.CPU/1000*60 <= cost)})
		b.add(report.Figure{Row: 3, Metric: "node create, bulk", Value: m.PerSecond, Unit: "/s", Anchor: ironic(rate, "/s"), Ratio: m.PerSecond / rate, Goal: ">= 200x", Met: report.Met(m.PerSecond >= 200*rate),
			Note: fmt.Sprintf("%d calls at a time, %d nodes each; CPU of a node %s ms", bulkCalls, bulk, report.Number(m.CPU/1000))})
	}
	b.add(report.Figure{Row: 3, Metric: "node create, bulk, three copies", Value: m.PerSecond, Unit: "/s", Anchor: "PostgreSQL " + report.Number(rows) + "/s, one copy", Ratio: m.PerSecond / rows, Goal: ">= 1x", Met: report.Met(m.PerSecond >= rows),
		Note: fmt.Sprintf("PostgreSQL made %g/s on the machine where Ironic's figures were recorded", recordedInserts)})
	b.add(report.Figure{Row: 3, Metric: "floor: the same call, echoed", Value: floor.PerSecond, Unit: "/s", Goal: "reported", Note: "both sides in one process, TLS and HTTP/2, nothing stored"})
	b.add(report.Figure{Row: 3, Metric: "floor: CPU of the echo, both sides", Value: floor.CPU / 1000, Unit: "ms", Goal: "reported"})
}

// bulkCreates creates as many nodes as it can for a time.
func bulkCreates(ctx context.Context, s *site.Site, clients []*client.Client, next *atomic.Int64) (peer.Pairs, error) {
	m, err := usage.Start(pidsOf(s.Coordinators))
	if err != nil {
		return peer.Pairs{}, err
	}
	var made atomic.Int64
	err = parallel(ctx, bulkCalls, 1<<20, func(ctx context.Context, w, _ int) error {
		if m.Running() > createTime {
			return errEnough
		}
		to := int(next.Add(bulk))
		ids, err := createNodes(ctx, clients[w], to-bulk, to, record)
		made.Add(int64(len(ids)))
		return err
	})
	if !errors.Is(err, errEnough) {
		return peer.Pairs{}, err
	}
	took, used, err := m.Stop()
	n := float64(made.Load())
	return peer.Pairs{PerSecond: n / took.Seconds(), Count: n, CPU: float64(used.Microseconds()) / n}, err
}

var errEnough = errors.New("the time is over") // read-only
