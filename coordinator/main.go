// Command farrier-coordinator is a member of the cluster that decides: it keeps the replicated state, serves the
// API, and gives orders to the rack agents.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/farrier-project/farrier/coordinator/server"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/heap"
)

// version is set by the linker.
var version = "unknown"

// heapHuge is how much of a coordinator's heap lies in huge pages, in bytes: more than 100,000 nodes take. Beyond, pages are small.
const heapHuge = 1 << 30

func main() {
	heap.Huge(heapHuge)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		complain(os.Stderr, err)
	}
	os.Exit(server.ExitCode(err))
}

// complain prints an error and what to do about it.
func complain(w io.Writer, err error) {
	fmt.Fprintln(w, "farrier-coordinator:", err)
	var e *fault.Error
	if errors.As(err, &e) && e.Help != "" {
		fmt.Fprintln(w, "  →", e.Help)
	}
}
