// Command farrier is the command line of Farrier.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/farrier-project/farrier/cmd/farrier/cli"
	"github.com/farrier-project/farrier/cmd/farrier/demo"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := cli.New(version, os.Stdin, os.Stdout, os.Stderr)
	root.AddCommand(demo.Command())
	err := root.ExecuteContext(ctx)
	if err != nil {
		outcome.Report(os.Stderr, err)
	}
	stop()
	os.Exit(outcome.ExitCode(err))
}
