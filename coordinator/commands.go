package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/coordinator/server"
)

// options are the flags that the commands share. A flag that was given wins over the file.
type options struct {
	file string
	cfg  config.Config // what flags say
	cmd  *cobra.Command
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "farrier-coordinator",
		Short:         "A member of the cluster that decides: replicated state, API, orders to rack agents",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	cmd.AddCommand(initCommand(), joinCommand(), rejoinCommand(), operatorTokenCommand(), runCommand(), versionCommand())
	return cmd
}

// flags adds the shared flags to a command.
func (o *options) flags(cmd *cobra.Command) {
	o.cmd = cmd
	o.cfg = config.Default()
	f := cmd.Flags()
	f.StringVar(&o.file, "config", "", "YAML configuration `file`; flags win over it")
	f.StringVar(&o.cfg.Data, "data", "", "`directory` of the log, the snapshots and the certificate")
	f.StringVar(&o.cfg.Name, "name", "", "this member's name")
	f.StringVar(&o.cfg.KeyFile, "key-file", "", "sealing keys, outside the data directory (default DATA.keys)")
	f.StringVar(&o.cfg.Listen.API, "api", o.cfg.Listen.API, "`address` of the API listener; port 0 chooses")
	f.StringVar(&o.cfg.Listen.Raft, "raft", o.cfg.Listen.Raft, "`address` of the Raft listener")
	f.StringVar(&o.cfg.Listen.Rack, "rack", o.cfg.Listen.Rack, "`address` of the listener for agents")
	f.StringVar(&o.cfg.Advertise.API, "advertise-api", "", "`address` at which others reach the API")
	f.StringVar(&o.cfg.Advertise.Raft, "advertise-raft", "", "`address` at which coordinators reach Raft")
	f.StringVar(&o.cfg.Advertise.Rack, "advertise-rack", "", "`address` at which agents reach this member")
	f.StringVar(&o.cfg.Profile, "profile", o.cfg.Profile, "default (election after 500 ms) or lan (300 ms)")
	f.StringVar(&o.cfg.AddressFile, "address-file", "", "write the chosen addresses as JSON to this `file`")
	f.BoolVar(&o.cfg.ExitWithStdin, "exit-with-stdin", false, "stop when standard input ends")
	f.StringVar(&o.cfg.Log.Level, "log-level", o.cfg.Log.Level, "debug, info, warn or error")
	f.StringVar(&o.cfg.Log.Format, "log-format", o.cfg.Log.Format, "text or json")
}

// config is the file under the flags that were given. Without --config it is the one that init or join left in the
// data directory.
func (o *options) config() (config.Config, error) {
	if kept := filepath.Join(o.cfg.Data, config.File); o.file == "" && o.cfg.Data != "" {
		if _, err := os.Stat(kept); err == nil {
			o.file = kept
		}
	}
	if o.file == "" {
		return o.cfg, nil
	}
	cfg, err := config.Load(o.file)
	if err != nil {
		return cfg, err
	}
	for name, set := range map[string]func(){
		"data": func() { cfg.Data = o.cfg.Data }, "name": func() { cfg.Name = o.cfg.Name },
		"key-file": func() { cfg.KeyFile = o.cfg.KeyFile }, "profile": func() { cfg.Profile = o.cfg.Profile },
		"api": func() { cfg.Listen.API = o.cfg.Listen.API }, "raft": func() { cfg.Listen.Raft = o.cfg.Listen.Raft },
		"rack":           func() { cfg.Listen.Rack = o.cfg.Listen.Rack },
		"advertise-api":  func() { cfg.Advertise.API = o.cfg.Advertise.API },
		"advertise-raft": func() { cfg.Advertise.Raft = o.cfg.Advertise.Raft },
		"advertise-rack": func() { cfg.Advertise.Rack = o.cfg.Advertise.Rack },
		"address-file":   func() { cfg.AddressFile = o.cfg.AddressFile }, "exit-with-stdin": func() { cfg.ExitWithStdin = o.cfg.ExitWithStdin },
		"log-level": func() { cfg.Log.Level = o.cfg.Log.Level }, "log-format": func() { cfg.Log.Format = o.cfg.Log.Format },
	} {
		if o.cmd.Flags().Changed(name) {
			set()
		}
	}
	return cfg, nil
}

func initCommand() *cobra.Command {
	var o options
	var i server.InitOptions
	cmd := &cobra.Command{Use: "init", Short: "Make a new cluster with this coordinator as its first member", Args: cobra.NoArgs,
		Example: "  farrier-coordinator init --data /var/lib/farrier/coordinator --name c1 --api 10.0.0.1:7600 --raft 10.0.0.1:7601 --rack 10.0.0.1:7602",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			return server.Init(cmd.Context(), cfg, server.System(cfg, version), i)
		}}
	o.flags(cmd)
	cmd.Flags().StringVar(&i.OperatorDir, "operator-dir", "", "`directory` for the first operator's certificate (default: operator, beside the data directory)")
	cmd.Flags().StringVar(&i.Operator, "operator", "admin", "the first operator's name")
	cmd.Flags().BoolVar(&i.Run, "run", false, "go on running")
	cmd.Flags().StringVar(&i.FromArchive, "from-archive", "", "`file` of `farrier coordinator snapshot save`: make the cluster anew that it is of, all of whose coordinators are lost; needs its --key-file")
	return cmd
}

func joinCommand() *cobra.Command {
	var o options
	var j server.JoinOptions
	cmd := &cobra.Command{Use: "join", Short: "Make this a coordinator of an existing cluster", Args: cobra.NoArgs,
		Example: "  farrier-coordinator join --data /var/lib/farrier/coordinator --token farrier-join-... --api 10.0.0.2:7600 --raft 10.0.0.2:7601 --rack 10.0.0.2:7602",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			return server.Join(cmd.Context(), cfg, server.System(cfg, version), j)
		}}
	o.flags(cmd)
	cmd.Flags().StringVar(&j.Token, "token", "", "the join `token`, from `farrier coordinator token NAME`")
	cmd.Flags().StringSliceVar(&j.Addresses, "api-of", nil, "API `addresses` of running coordinators (default: those in the token)")
	cmd.Flags().BoolVar(&j.Run, "run", false, "go on running")
	_ = cmd.MarkFlagRequired("token") // the flag exists
	return cmd
}

func rejoinCommand() *cobra.Command {
	var o options
	var addresses []string
	cmd := &cobra.Command{Use: "rejoin", Short: "Give a coordinator with a damaged log a fresh start in its cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			return server.Rejoin(cmd.Context(), cfg, server.System(cfg, version), addresses)
		}}
	o.flags(cmd)
	cmd.Flags().StringSliceVar(&addresses, "api-of", nil, "API `addresses` of other coordinators")
	_ = cmd.MarkFlagRequired("api-of") // the flag exists
	return cmd
}

func operatorTokenCommand() *cobra.Command {
	var o options
	var t server.OperatorTokenOptions
	cmd := &cobra.Command{Use: "operator-token NAME", Short: "Make a token with which an operator joins, when no operator's certificate is valid any more", Args: cobra.ExactArgs(1),
		Long: "Make a token with which an operator joins: the way back when no operator's certificate is valid any more.\n\n" +
			"It is for root on the host of a coordinator that runs, and uses that coordinator's certificate. The token is good\n" +
			"for one use; the operator gives it to `farrier operator join`.",
		Example: "  farrier-coordinator operator-token alice --data /var/lib/farrier/coordinator",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			t.Name = args[0]
			return server.OperatorToken(cmd.Context(), cfg, server.System(cfg, version), t)
		}}
	o.flags(cmd)
	cmd.Flags().DurationVar(&t.TTL, "ttl", 10*time.Minute, "how long the token is good")
	cmd.Flags().StringSliceVar(&t.Addresses, "api-of", nil, "API `addresses` of running coordinators (default: this one's)")
	return cmd
}

func runCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{Use: "run", Short: "Run this coordinator", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			return server.Run(cmd.Context(), cfg, server.System(cfg, version))
		}}
	o.flags(cmd)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
		fmt.Fprintln(cmd.OutOrStdout(), "farrier-coordinator", version)
	}}
}
