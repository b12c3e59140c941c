package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"time"

	"github.com/farrier-project/farrier/test/bench/peer"
	"github.com/farrier-project/farrier/test/bench/report"
)

// row measures one row of the goals. It appends its figures as it gets them.
type row struct {
	number int
	title  string
	run    func(ctx context.Context, b *bench) error
}

// rows are those that can be measured, in the order of running.
var rows = []row{ // read-only
	{1, "lock pairs", locks},
	{2, "lock latency", latency},
	{3, "node creates", creates},
	{4, "simulated deploys", deploys},
	{5, "heartbeats", heartbeats},
	{6, "leader lost", leaderLoss},
	{7, "agent lost", agentLoss},
	{8, "placement", placement},
	{13, "memory", memory},
	{14, "snapshot and restart", restart},
}

// bench is one run.
type bench struct {
	dir     string // for data; removed at the end
	bin     string // of the programs under test
	long    bool
	plain   bool // etcd without TLS
	figures []report.Figure
}

func (b *bench) add(f report.Figure) { b.figures = append(b.figures, f) }

func main() {
	debug.SetGCPercent(peer.GC)
	only := flag.Int("row", 0, "run only this row")
	long := flag.Bool("long", false, "run the long parts as well")
	plain := flag.Bool("plain", false, "etcd's members and clients talk without TLS; Farrier's do not")
	out := flag.String("json", "bench.json", "file for the figures")
	bin := flag.String("bin", "bin", "directory of the programs under test")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, &bench{bin: *bin, long: *long, plain: *plain}, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only int, b *bench, out string) error {
	dir, err := os.MkdirTemp("", "farrier-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	if only != 0 && !slices.ContainsFunc(rows, func(r row) bool { return r.number == only }) {
		return fmt.Errorf("there is no row %d", only)
	}
	var failures []error
	for _, r := range rows {
		if only != 0 && r.number != only || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "row %d: %s ...\n", r.number, r.title)
		start, had := time.Now(), len(b.figures)
		err := r.run(ctx, b)
		report.Print(os.Stderr, b.figures[had:])
		fmt.Fprintf(os.Stderr, "row %d took %.1f s\n", r.number, time.Since(start).Seconds())
		if err != nil { // the other rows count all the same
			failures = append(failures, fmt.Errorf("row %d: %w", r.number, err))
			fmt.Fprintln(os.Stderr, "bench:", failures[len(failures)-1])
		}
	}
	report.Print(os.Stdout, b.figures)
	return errors.Join(append(failures, report.WriteJSON(out, b.figures))...)
}
