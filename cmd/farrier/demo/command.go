package demo

import (
	"context"
	"os"

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
	var parent int
	c := &cobra.Command{
		Use: "demo", Short: "A whole Farrier on this computer, with simulated machines", Args: cobra.NoArgs,
		Long: "demo starts three coordinators and two rack agents as processes, and simulated machines with a Redfish BMC\neach; it enrols, verifies, inspects, cleans and deploys them, and says what happens.\n\nOn a terminal it stays up until Ctrl-C. Elsewhere, or with DEMO_EXIT=1, it leaves when all machines are active.",
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "directory for everything it writes (default .farrier-demo)")
	c.Flags().StringVar(&o.Bin, "bin", "", "directory of the daemons (default that of this program)")
	c.Flags().IntVar(&o.Machines, "machines", 0, "how many machines, 1 to 16 (default 4, and 1 with --vm)")
	c.Flags().BoolVar(&o.VM, "vm", false, "machines that QEMU emulates, with real firmware and a real kernel (after 'make setup', on Debian)")
	c.Flags().DurationVar(&o.Timeout, "give-up", 0, "fail when not every machine is active after this time (default 2m, and 5m with --vm)")
	c.Flags().IntVar(&parent, "parent", 0, "process id of the program that starts this one: end when that ends, also by kill -9")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if parent != 0 {
			if err := endWithParent(parent); err != nil {
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

// endWithParent asks the kernel for SIGTERM when the parent ends: make, for one, holds no pipe to what it runs. Whether it has ended
// before that was asked shows by the process that is the parent now; it may be process 1 from the start, in a container.
func endWithParent(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fault.New(fault.Unsupported, "follow the parent process", "%w", err)
	}
	if now := os.Getppid(); now != parent {
		return fault.New(fault.Aborted, "follow the parent process", "%d is the parent, not %d: that has ended", now, parent)
	}
	return nil
}

// enter runs this program again in namespaces of its own and ends with its status; there, it returns true. The kernel
// kills that process when this one ends.
func enter(ctx context.Context) (inside bool, err error) {
	inside, status, err := netns.Enter(ctx)
	if err != nil {
		return false, fault.New(fault.Unsupported, "make namespaces", "%w", err)
	}
	if !inside && status != 0 {
		os.Exit(status) // it has said why
	}
	return inside, nil
}
