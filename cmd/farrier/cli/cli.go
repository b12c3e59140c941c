package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// app is what the commands share: the flags of the root and the streams.
type app struct {
	config  string
	servers []string
	output  string
	timeout time.Duration

	in       io.Reader
	out, err io.Writer
}

// New is the root command without demo, which main adds.
func New(version string, in io.Reader, out, errOut io.Writer) *cobra.Command {
	a := &app{in: in, out: out, err: errOut}
	root := &cobra.Command{
		Use:           "farrier",
		Short:         "Provision bare metal",
		Long:          "farrier speaks to Farrier's coordinators.\n\nIt finds them, and the operator's certificate, in a configuration directory:\n--config, or $FARRIER_CONFIG, or ~/.config/farrier, or /etc/farrier/operator.\n\nExit status: 0 done, 1 failure, 2 wrong usage, 3 not found, 4 conflict (locked, illegal state, changed, taken),\n5 unavailable (no quorum, no answer, no live agent, limit), 6 denied, 7 the work that --wait waited for failed,\n8 no configuration directory, 130 interrupted.\nWith several machines it is the status of the first that failed.",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(wrongFlag)
	f := root.PersistentFlags()
	f.StringVar(&a.config, "config", "", "configuration directory (certificate and server list)")
	f.StringSliceVar(&a.servers, "server", nil, "addresses of coordinators, instead of the configured ones")
	f.StringVarP(&a.output, "output", "o", "table", "table, json or yaml")
	f.DurationVar(&a.timeout, "timeout", 0, "give up after this time (default: only when coordinators do not answer)")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(a.node(), a.port(), a.lock(), a.ring(), a.agent(), a.event(), a.coordinator(), a.setting(), a.operator())
	root.InitDefaultCompletionCmd() // cobra's, which would come only when the line is read
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "What a shell reads to complete a line of farrier"
			c.Args, c.RunE = noArguments, func(c *cobra.Command, _ []string) error { return c.Help() }
			for _, shell := range c.Commands() {
				shell.Args = exactly(0)
			}
		}
	}
	a.complete(root)
	return root
}

// noun makes a command that only groups others.
func noun(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArguments, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(children...)
	return c
}

// noArguments refuses words that are no subcommand.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	advice := fmt.Sprintf("see `%s --help`", c.CommandPath())
	like := c.SuggestionsFor(args[0])
	if use, ok := outcome.Commands()[args[0]]; ok && c.Name() == "node" { // Ironic's word, which may look like that of another thing
		like = []string{use}
	}
	if len(like) > 0 {
		advice = fmt.Sprintf("did you mean `%s %s`? %s", c.CommandPath(), like[0], advice)
	}
	return wrongly(c, "there is no command %q", args[0]).WithHelp("%s", advice)
}

// exactly is cobra.ExactArgs with an error that says what to type.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return wrongly(c, "%q is an argument too many", args[n]).WithHelp("usage: %s", c.UseLine())
		}
		return enough(c, args)
	}
}

// enough refuses a line without one of the arguments that the usage line of c begins with; more of the last are welcome.
func enough(c *cobra.Command, args []string) error {
	for i, name := range strings.Fields(c.Use)[1:] {
		if strings.HasPrefix(name, "-") || strings.HasPrefix(name, "[") {
			break
		}
		if i >= len(args) {
			return wrongly(c, "%s is missing", strings.TrimSuffix(name, "...")).WithHelp("usage: %s", c.UseLine())
		}
	}
	return nil
}

// wrongly is an error in how c was typed.
func wrongly(c *cobra.Command, format string, args ...any) *fault.Error {
	_, words, _ := strings.Cut(c.CommandPath(), " ")
	return fault.New(fault.Invalid, words, format, args...)
}

// wrongFlag is an error in a flag, with the flags of c that look like one that it does not have.
func wrongFlag(c *cobra.Command, err error) error {
	advice := fmt.Sprintf("see `%s --help`", c.CommandPath())
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var like []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name) {
				like = append(like, "--"+f.Name)
			}
		})
		if len(like) > 0 {
			advice = fmt.Sprintf("did you mean %s? %s", strings.Join(like, " or "), advice)
		}
	}
	return wrongly(c, "%w", err).WithHelp("%s", advice)
}

func (a *app) configDir() string {
	if a.config != "" {
		return a.config
	}
	if env := os.Getenv("FARRIER_CONFIG"); env != "" {
		return env
	}
	if dir, err := os.UserConfigDir(); err == nil {
		if own := filepath.Join(dir, "farrier"); exists(filepath.Join(own, client.ServersFile)) {
			return own
		}
	}
	return "/etc/farrier/operator"
}

// joinDir is where a new certificate goes: never by default where another operator's may be.
func (a *app) joinDir() (string, error) {
	if a.config != "" || os.Getenv("FARRIER_CONFIG") != "" {
		return a.configDir(), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fault.New(fault.Invalid, "join", "%w", err).WithHelp("give --config DIRECTORY")
	}
	return filepath.Join(dir, "farrier"), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// connect makes a client from the configuration directory. One that is not there, or not whole, is no machine that is not found.
func (a *app) connect() (*client.Client, error) {
	dir := a.configDir()
	cl, err := a.open(dir)
	if fault.KindOf(err) != fault.NotFound {
		return cl, err
	}
	f := fault.New(fault.NotFound, "find configuration", "%s %w: %w", dir, outcome.ErrNoConfig, err)
	if _, gone := identity.OpenStore(dir); gone == nil { // only its list of servers is not there
		return nil, f.WithHelp("%s", client.Fault(err).Help)
	}
	return nil, f.WithHelp("with a token: `farrier operator join TOKEN`; else set FARRIER_CONFIG to the operator directory that `farrier-coordinator init` wrote, or that `farrier demo` printed")
}

func (a *app) open(dir string) (*client.Client, error) {
	if len(a.servers) == 0 {
		return client.Open(dir)
	}
	store, err := identity.OpenStore(dir)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Identity: store, Addresses: a.servers})
}

// run wraps a command's body: it opens and closes the client, applies --timeout and reads -o.
func (a *app) run(body func(s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		format, err := view.ParseFormat(a.output)
		if err != nil {
			return err
		}
		cl, err := a.connect()
		if err != nil {
			return err
		}
		defer cl.Close()
		ctx, cancel := c.Context(), func() {}
		if a.timeout > 0 {
			ctx, cancel = contextWithTimeout(ctx, a.timeout)
		}
		defer cancel()
		s := &session{app: a, ctx: ctx, cmd: c, Client: cl, Printer: view.Printer{Out: a.out, Format: format, Color: colour(a.out)}}
		err = body(s, args)
		a.warnOfEnd(cl)
		return outcome.Of(c.Context(), err)
	}
}

// endIsNear is how long before its end a certificate that could not be renewed is spoken of. Renewal is tried for a third
// of its life.
const endIsNear = 7 * 24 * time.Hour

func (a *app) warnOfEnd(cl *client.Client) {
	ends, err := cl.Certificate()
	if left := time.Until(ends); err != nil && left > 0 && left < endIsNear {
		fmt.Fprintf(a.err, "farrier: warning: your certificate ends in %s and was not renewed: %s\n", left.Truncate(time.Minute), view.Clean(err.Error()))
	}
}

func colour(w io.Writer) bool { return terminal(w) && os.Getenv("NO_COLOR") == "" }

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size is how many columns and rows the terminal has; zeros where there is none.
func size(w io.Writer) func() (columns, rows int) {
	return func() (int, int) {
		f, ok := w.(*os.File)
		if !ok {
			return 0, 0
		}
		columns, rows, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return columns, rows
	}
}

// lockWait adds --lock-wait to a command and reads it.
func lockWait(c *cobra.Command) func() *farrierv1.LockWait {
	d := c.Flags().Duration("lock-wait", 3*time.Second, "how long to wait in the node's queue; 0: not at all")
	patient := c.Flags().Bool("patient", false, "wait in the node's queue as long as it takes")
	return func() *farrierv1.LockWait {
		return &farrierv1.LockWait{Wait: durationpb.New(*d), Patient: *patient}
	}
}
