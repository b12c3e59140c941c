// Command farrier-agent is the daemon of one rack.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/farrier-project/farrier/agent/config"
	"github.com/farrier-project/farrier/agent/server"
	"github.com/farrier-project/farrier/pkg/fault"
)

// version is set by the linker.
var version = "unknown"

const usage = `farrier-agent is the daemon of one rack.

  farrier-agent join --token TOKEN --data DIR [--api-of ADDRESS,...] [--run] [flags of run]
  farrier-agent run [--config FILE] [--data DIR] [--address-file FILE] [--exit-with-stdin]
  farrier-agent version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "farrier-agent:", err)
		var f *fault.Error
		if errors.As(err, &f) && f.Help != "" {
			fmt.Fprintln(os.Stderr, "help:", f.Help)
		}
	}
	stop()
	os.Exit(server.ExitCode(err))
}

func command(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	f := flag.NewFlagSet("farrier-agent "+name, flag.ContinueOnError)
	o := flags{}
	o.define(f)
	switch name {
	case "version":
		fmt.Println("farrier-agent", version)
		return nil
	case "run", "join":
	case "help", "-h", "-help", "--help":
		fmt.Print(usage)
		return nil
	default:
		fmt.Fprint(os.Stderr, usage)
		return fault.New(fault.Invalid, "read arguments", "there is no command %q", name)
	}
	if err := f.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return nil // it has printed the flags
	} else if err != nil {
		return fault.New(fault.Invalid, "read arguments", "%w", err)
	}
	cfg, err := o.config(f)
	if err != nil {
		return err
	}
	env := server.System(cfg, version)
	if name == "join" {
		join := server.JoinOptions{Token: o.token, Addresses: o.apiOf()}
		if err := server.Join(ctx, cfg, env, join); err != nil || !o.run {
			return err
		}
	}
	return server.Run(ctx, cfg, env)
}

// flags are those of all commands. What is given goes over the configuration file.
type flags struct {
	file, data, token, api, addressFile string
	stdin, run                          bool
}

func (o *flags) define(f *flag.FlagSet) {
	f.StringVar(&o.file, "config", "", "configuration `FILE`")
	f.StringVar(&o.data, "data", "", "data `DIR`ectory")
	f.StringVar(&o.token, "token", "", "join `TOKEN`")
	f.StringVar(&o.api, "api-of", "", "`ADDRESS`es of coordinators' APIs, instead of the token's")
	f.StringVar(&o.addressFile, "address-file", "", "write the bound addresses to `FILE`")
	f.BoolVar(&o.stdin, "exit-with-stdin", false, "end when standard input ends")
	f.BoolVar(&o.run, "run", false, "run after joining")
}

func (o *flags) config(f *flag.FlagSet) (cfg config.Config, err error) {
	cfg = config.Default()
	if o.file != "" {
		if cfg, err = config.Load(o.file); err != nil {
			return cfg, err
		}
	}
	f.Visit(func(g *flag.Flag) {
		switch g.Name {
		case "data":
			cfg.Data = o.data
		case "address-file":
			cfg.AddressFile = o.addressFile
		case "exit-with-stdin":
			cfg.ExitWithStdin = o.stdin
		}
	})
	return cfg, nil
}

func (o *flags) apiOf() []string {
	if o.api == "" {
		return nil
	}
	return strings.Split(o.api, ",")
}
