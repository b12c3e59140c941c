package demo

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/test/lab/netns"
)

// Command is the subcommand. On a terminal it stays up until Ctrl-C; elsewhere, or with DEMO_EXIT=1 in the
// environment, it leaves when all machines are active.
func Command() *cobra.Command {
	var o Options
	var withParent bool
	c := &cobra.Command{
		Use: "demo", Short: "A whole Farrier on this computer, with simulated machines", Args: cobra.NoArgs,
		Long: "demo starts three coordinators and two rack agents as processes, and simulated machines with a Redfish BMC\neach; it enrols, verifies, inspects, cleans and deploys them, and says what happens.\n\nOn a terminal it stays up until Ctrl-C. Elsewhere, or with DEMO_EXIT=1, it leaves when all machines are active.",
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "directory for everything it writes (default .farrier-demo)")
	c.Flags().StringVar(&o.Bin, "bin", "", "directory of the daemons (default that of this program)")
	c.Flags().IntVar(&o.Machines, "machines", 0, "how many machines, 1 to 16 (default 4, and 1 with --vm)")
	c.Flags().BoolVar(&o.VM, "vm", false, "machines that QEMU emulates, with real firmware and a real kernel (after 'make setup', on Debian)")
	c.Flags().DurationVar(&o.Timeout, "give-up", 0, "fail when not every machine is active after this time (default 2m, and 5m with --vm)")
	c.Flags().BoolVar(&withParent, "exit-with-parent", false, "end when the program that started this one ends, also by kill -9")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if withParent {
			if err := exitWithParent(); err != nil {
				return err
			}
		}
		if o.VM {
			if inside, err := enter(c.Context()); err != nil || !inside {
				return err
			}
		}
		o.Out = c.OutOrStdout()
		out, ok := o.Out.(*os.File)
		o.Stay = ok && term.IsTerminal(int(out.Fd())) && os.Getenv("DEMO_EXIT") != "1"
		return Run(c.Context(), o)
	}
	return c
}

// exitWithParent asks the kernel for SIGTERM when the parent ends: make, for one, holds no pipe to what it runs.
func exitWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fault.New(fault.Unsupported, "follow the parent process", "%w", err)
	}
	if os.Getppid() == 1 {
		return fault.New(fault.Aborted, "follow the parent process", "it has ended already")
	}
	return nil
}

// stopWait is how long the process in the namespaces may take to end in order.
const stopWait = 8 * time.Second

// enter runs this program again in namespaces of its own and ends with its status; there, it returns true. The kernel
// kills that process when this one ends.
func enter(ctx context.Context) (inside bool, err error) {
	type result struct {
		inside bool
		status int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.inside, r.status, r.err = netns.Enter()
		done <- r
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done(): // Ctrl-C reached that process too
		select {
		case r = <-done:
		case <-time.After(stopWait):
			return false, fault.New(fault.Aborted, "demo", "%w", ctx.Err())
		}
	}
	if r.err != nil {
		return false, fault.New(fault.Unsupported, "make namespaces", "%w", r.err)
	}
	if !r.inside && r.status != 0 {
		os.Exit(r.status) // it has said why
	}
	return r.inside, nil
}
