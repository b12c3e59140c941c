package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/hint"
)

// nodeVerb is a command for one provision verb without arguments.
func (a *app) nodeVerb(use, verb, short string) *cobra.Command {
	c := &cobra.Command{Use: use + " NODE", Short: short, Args: exactly(1)}
	follow := c.Flags().Bool("wait", false, "follow the work to its end")
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) error {
		return s.provision(&farrierv1.SetProvisionStateRequest{Node: args[0], Verb: verb, Wait: wait()}, *follow)
	})
	return c
}

func (s *session) provision(req *farrierv1.SetProvisionStateRequest, follow bool) error {
	res, err := s.Nodes.SetProvisionState(s.ctx, req)
	if err != nil {
		return err
	}
	n := res.GetNode()
	told := n.GetProvisionState()
	if n.GetFlow().GetState() == "open" {
		told += fmt.Sprintf(", flow %d opened; follow it with: farrier node watch %s", n.GetFlow().GetId(), title(n))
	}
	return s.settle(n, follow, told)
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
	fl.StringArrayVar(&hints, "root-device", nil, "KEY=VALUE hint for the disk: "+hint.List())
	follow := fl.Bool("wait", false, "follow the work to its end")
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) (err error) {
		if image.GetUrl() != "" {
			if image.GetFormat() == "" {
				image.Format = formatOf(image.GetUrl())
			}
			d.Image = &image
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
		return s.provision(&farrierv1.SetProvisionStateRequest{Node: args[0], Verb: verb, Deploy: &d, Wait: wait()}, *follow)
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
		return s.provision(req, *follow)
	})
	return c
}

func (a *app) nodePower() *cobra.Command {
	verb := func(use, target, short string) *cobra.Command {
		c := &cobra.Command{Use: use + " NODE", Short: short, Args: exactly(1)}
		follow := c.Flags().Bool("wait", false, "follow the work to its end")
		wait := lockWait(c)
		c.RunE = a.run(func(s *session, args []string) error {
			res, err := s.Nodes.SetPowerState(s.ctx, &farrierv1.SetPowerStateRequest{Node: args[0], Target: target, Wait: wait()})
			if err != nil {
				return err
			}
			return s.settle(res.GetNode(), *follow, "asked for "+target)
		})
		return c
	}
	return noun("power", "Chassis power",
		verb("on", "power on", "Power on"), verb("off", "power off", "Power off at once"), verb("reboot", "rebooting", "Power off, then on"),
		verb("soft-off", "soft power off", "Ask the operating system to shut down"), verb("soft-reboot", "soft rebooting", "Ask the operating system to restart"))
}

func (a *app) nodeMaintenance() *cobra.Command {
	set := &cobra.Command{Use: "set NODE", Short: "Take a machine out of service: running work pauses at the end of its step", Args: exactly(1)}
	reason := set.Flags().String("reason", "", "why")
	set.RunE = a.run(func(s *session, args []string) error { return s.maintenance(args[0], true, *reason) })
	unset := &cobra.Command{Use: "unset NODE", Short: "End maintenance: paused work goes on", Args: exactly(1)}
	unset.RunE = a.run(func(s *session, args []string) error { return s.maintenance(args[0], false, "") })
	return noun("maintenance", "Maintenance mode", set, unset)
}

func (s *session) maintenance(node string, on bool, reason string) error {
	res, err := s.Nodes.SetMaintenance(s.ctx, &farrierv1.SetMaintenanceRequest{Node: node, On: on, Reason: reason})
	if err != nil {
		return err
	}
	return s.Message(res.GetNode(), func() {
		s.say("%s: maintenance %s", title(res.GetNode()), map[bool]string{true: "on", false: "off"}[on])
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
		return s.Message(res.GetNode(), func() { s.say("%s: wipe waived", title(res.GetNode())) })
	})
	return c
}

func (a *app) nodeWatch() *cobra.Command {
	c := &cobra.Command{Use: "watch [NODE...]", Short: "Show work as it happens", Args: cobra.ArbitraryArgs}
	c.RunE = a.run(func(s *session, args []string) error {
		if len(args) == 1 && s.Format == view.Table {
			live := view.Live{Out: s.Out, TTY: terminal(s.Out), Color: s.Color, Now: time.Now}
			_, err := s.Follow(s.ctx, args[0], live.Show)
			return err
		}
		return s.events(&farrierv1.WatchRequest{Nodes: args}, "")
	})
	return c
}
