package demo

import (
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/farrier-project/farrier/pkg/fault"
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
	c.Flags().IntVar(&o.Machines, "machines", 4, "how many machines, 1 to 16")
	c.Flags().BoolVar(&withParent, "exit-with-parent", false, "end when the program that started this one ends, also by kill -9")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if withParent {
			if err := exitWithParent(); err != nil {
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
