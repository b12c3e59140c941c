package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/hint"
)

// nodeVerb is a command for one provision verb without arguments.
func (a *app) nodeVerb(use, verb, short string) *cobra.Command {
	c := &cobra.Command{Use: use + " NODE...", Short: short, Args: enough}
	follow := c.Flags().Bool("wait", false, "follow the work to its end")
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) error {
		return s.works(args, *follow, func(node string) (*farrierv1.Node, work, string, error) {
			return s.provision(&farrierv1.SetProvisionStateRequest{Node: node, Verb: verb, Wait: wait()})
		})
	})
	return c
}

// provision asks for a verb.
func (s *session) provision(req *farrierv1.SetProvisionStateRequest) (*farrierv1.Node, work, string, error) {
	res, err := s.Nodes.SetProvisionState(s.ctx, req)
	if err != nil {
		return nil, work{}, "", err
	}
	n := res.GetNode()
	told := n.GetProvisionState()
	if n.GetFlow().GetState() == "open" {
		told += fmt.Sprintf(", flow %d is open; follow it with: farrier node watch %s", n.GetFlow().GetId(), view.Title(n))
	}
	return n, workOf(req.GetVerb(), n), told, nil
}

// works asks for work on each node, then waits for all of it if wait is set: the work is done side by side.
func (s *session) works(nodes []string, wait bool, ask func(node string) (*farrierv1.Node, work, string, error)) error {
	type asked struct {
		n    *farrierv1.Node
		w    work
		told string
	}
	var all []asked
	err := s.each(nodes, func(node string) error {
		n, w, told, err := ask(node)
		if err == nil {
			all = append(all, asked{n, w, told})
		}
		return err
	})
	errs := []error{err}
	for _, x := range all {
		errs = append(errs, s.settle(x.n, x.w, wait, x.told))
	}
	return errors.Join(errs...)
}

// each calls fn with every argument, whatever becomes of the others, and returns all errors.
func (s *session) each(args []string, fn func(arg string) error) error {
	var errs []error
	for _, arg := range args {
		err := fn(arg)
		if err != nil && len(args) > 1 {
			err = fault.Wrap(arg, client.Fault(err))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (a *app) nodeDeploy(use, verb, short string) *cobra.Command {
	var image farrierv1.Image
	var d farrierv1.DeployArgs
	var userData, networkData string
	var hints, meta []string
	c := &cobra.Command{Use: use + " NODE --image URL --sha256 HEX", Short: short, Args: exactly(1),
		Example: "  farrier node " + use + " web-1 --image https://images.example/debian-12.raw.zst --sha256 9f86… --user-data cloud-init.yaml --wait"}
	fl := c.Flags()
	fl.StringVar(&image.Url, "image", "", "URL of the image (http or https)")
	fl.StringVar(&image.Sha256, "sha256", "", "SHA-256 of the file at the URL, hex")
	fl.StringVar(&image.Format, "format", "", "raw, raw.gz or raw.zst; by the URL's ending if absent")
	fl.StringVar(&d.Hostname, "hostname", "", "for the config drive; the node's name if absent")
	fl.StringVar(&userData, "user-data", "", "FILE for the config drive")
	fl.StringVar(&networkData, "network-data", "", "FILE (JSON) for the config drive")
	fl.StringArrayVar(&meta, "meta", nil, "KEY=VALUE for the config drive's meta data")
	fl.StringArrayVar(&hints, "root-device", nil, "KEY=VALUE hint for the disk, with Ironic's operators: "+hint.List())
	follow := fl.Bool("wait", false, "follow the work to its end")
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) (err error) {
		if image.GetUrl() != "" {
			if image.GetFormat() == "" {
				image.Format = formatOf(image.GetUrl())
			}
			d.Image = &image
		} else if image.GetSha256() != "" || image.GetFormat() != "" {
			return fault.New(fault.Invalid, use, "--sha256 and --format are of an image that is not named").WithHelp("give --image URL too, or neither")
		} else if verb == "active" {
			return fault.New(fault.Invalid, "deploy", "no image").WithHelp("give --image URL and --sha256 of the file there")
		}
		if d.RootDeviceHints, err = keyValues("root-device", hints); err != nil {
			return err
		}
		if d.MetaData, err = keyValues("meta", meta); err != nil {
			return err
		}
		if userData != "" {
			if d.UserData, err = readFile(userData); err != nil {
				return err
			}
		}
		if networkData != "" {
			if d.NetworkData, err = readFile(networkData); err != nil {
				return err
			}
		}
		return s.works(args, *follow, func(node string) (*farrierv1.Node, work, string, error) {
			return s.provision(&farrierv1.SetProvisionStateRequest{Node: node, Verb: verb, Deploy: &d, Wait: wait()})
		})
	})
	return c
}

func formatOf(url string) string {
	path, _, _ := strings.Cut(url, "?")
	switch {
	case strings.HasSuffix(path, ".gz"):
		return "raw.gz"
	case strings.HasSuffix(path, ".zst"):
		return "raw.zst"
	default:
		return "raw"
	}
}

func (a *app) nodeClean() *cobra.Command {
	var steps []string
	c := &cobra.Command{Use: "clean NODE --step deploy.erase_devices", Short: "Run clean steps by hand on a manageable machine", Args: exactly(1)}
	c.Flags().StringArrayVar(&steps, "step", nil, "INTERFACE.STEP, with KEY=VALUE arguments after commas; run in this order")
	follow := c.Flags().Bool("wait", false, "follow the work to its end")
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) error {
		req := &farrierv1.SetProvisionStateRequest{Node: args[0], Verb: "clean", Wait: wait()}
		for _, text := range steps {
			parts := strings.Split(text, ",")
			iface, name, ok := strings.Cut(parts[0], ".")
			if !ok {
				return fault.New(fault.Invalid, "--step", "%q is not INTERFACE.STEP", parts[0]).WithHelp("such as deploy.erase_devices or deploy.erase_devices_metadata")
			}
			kv, err := keyValues("step", parts[1:])
			if err != nil {
				return err
			}
			req.CleanSteps = append(req.CleanSteps, &farrierv1.CleanStep{Interface: iface, Step: name, Args: kv})
		}
		return s.works(args, *follow, func(string) (*farrierv1.Node, work, string, error) { return s.provision(req) })
	})
	return c
}

func (a *app) nodePower() *cobra.Command {
	verb := func(use, target, short string) *cobra.Command {
		c := &cobra.Command{Use: use + " NODE...", Short: short, Args: enough}
		follow := c.Flags().Bool("wait", false, "follow the work to its end")
		wait := lockWait(c)
		c.RunE = a.run(func(s *session, args []string) error {
			return s.works(args, *follow, func(node string) (*farrierv1.Node, work, string, error) {
				res, err := s.Nodes.SetPowerState(s.ctx, &farrierv1.SetPowerStateRequest{Node: node, Target: target, Wait: wait()})
				w := workOf(target, res.GetNode())
				w.power = true
				return res.GetNode(), w, "asked for " + target, err
			})
		})
		return c
	}
	return noun("power", "Chassis power",
		verb("on", "power on", "Power on"), verb("off", "power off", "Power off at once"), verb("reboot", "rebooting", "Power off, then on"),
		verb("soft-off", "soft power off", "Ask the operating system to shut down"), verb("soft-reboot", "soft rebooting", "Ask the operating system to restart"))
}

func (a *app) nodeMaintenance() *cobra.Command {
	set := &cobra.Command{Use: "set NODE...", Short: "Take a machine out of service: running work pauses at the end of its step", Args: enough}
	reason := set.Flags().String("reason", "", "why")
	set.RunE = a.run(func(s *session, args []string) error { return s.maintenance(args, true, *reason) })
	unset := &cobra.Command{Use: "unset NODE...", Short: "End maintenance: paused work goes on", Args: enough}
	unset.RunE = a.run(func(s *session, args []string) error { return s.maintenance(args, false, "") })
	return noun("maintenance", "Maintenance mode", set, unset)
}

func (s *session) maintenance(nodes []string, on bool, reason string) error {
	return s.each(nodes, func(node string) error {
		res, err := s.Nodes.SetMaintenance(s.ctx, &farrierv1.SetMaintenanceRequest{Node: node, On: on, Reason: reason})
		if err != nil {
			return err
		}
		return s.Message(res.GetNode(), func() {
			s.say("%s: maintenance %s", view.Title(res.GetNode()), map[bool]string{true: "on", false: "off"}[on])
		})
	})
}

func (a *app) nodeWaive() *cobra.Command {
	c := &cobra.Command{Use: "waive-wipe NODE --reason TEXT", Short: "Record that a machine may become available without a wipe", Args: exactly(1)}
	reason := c.Flags().String("reason", "", "why; kept with the machine")
	c.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Nodes.WaiveWipe(s.ctx, &farrierv1.WaiveWipeRequest{Node: args[0], Reason: *reason})
		if err != nil {
			return err
		}
		return s.Message(res.GetNode(), func() { s.say("%s: wipe waived", view.Title(res.GetNode())) })
	})
	return c
}

func (a *app) nodeWatch() *cobra.Command {
	c := &cobra.Command{Use: "watch [NODE...]", Short: "Show machines and their work as it happens", Args: cobra.ArbitraryArgs,
		Long: "Show machines and their work as it happens, until Ctrl-C or --timeout.\n\n" +
			"One machine on a terminal: its steps, redrawn in place. Else one line for each change, of the machines that are\n" +
			"named or of all. With -o json or yaml: the machine after each change. `farrier event tail` has every event."}
	rest := c.Flags().Bool("until-settled", false, "end when no work is under way on any of them")
	c.RunE = a.run(func(s *session, args []string) error {
		live := s.live(s.Out)
		live.TTY = live.TTY && len(args) == 1
		busy, read := map[string]bool{}, map[string]bool{}
		settled := errors.New("settled")
		err := s.Observe(s.ctx, client.Observation{Nodes: args, Away: s.away(s.live(s.app.err)), Show: func(n *farrierv1.Node) error {
			if s.Format != view.Table {
				if err := s.Line(n); err != nil {
					return err
				}
			} else {
				live.Show(n)
			}
			read[n.GetId()] = true
			if busy[n.GetId()] = !client.Settled(n); busy[n.GetId()] {
				return nil
			}
			delete(busy, n.GetId())
			if *rest && len(busy) == 0 && len(args) > 0 && len(read) >= len(args) {
				return settled
			}
			return nil
		}})
		if errors.Is(err, settled) {
			return nil
		}
		return s.ended(err)
	})
	return c
}
