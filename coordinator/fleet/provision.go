package fleet

import (
	"context"
	"slices"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// powerTargets are the texts that SetPowerState takes, Ironic's.
var powerTargets = []string{"power on", "power off", "rebooting", "soft power off", "soft rebooting"} // read-only

// SetProvisionState implements NodeService.
func (s *Service) SetProvisionState(ctx context.Context, req *farrierv1.SetProvisionStateRequest) (*farrierv1.SetProvisionStateResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) { return s.provision(ctx, req) })
	if err != nil {
		return nil, fault.Wrap(refusal.Clip(req.GetVerb()), err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.SetProvisionStateResponse{Node: out}, err
}

func (s *Service) provision(ctx context.Context, req *farrierv1.SetProvisionStateRequest) (command.Result, error) {
	verb, ok := lifecycle.ParseVerb(req.GetVerb())
	if !ok {
		return command.Result{}, refusal.Invalid("verb", "there is no verb %q", refusal.Clip(req.GetVerb())).WithHelp("the verbs are %s", verbNames())
	}
	v := s.cfg.Desk.View()
	n, err := message.FindNode(v, req.GetNode())
	if err != nil {
		return command.Result{}, err
	}
	body := command.Provision{Node: n.ID, Verb: verb.String()}
	if verb != lifecycle.Deploy && verb != lifecycle.Rebuild && req.GetDeploy() != nil {
		return command.Result{}, refusal.Invalid("deploy", "it goes with active and rebuild only")
	}
	if verb != lifecycle.Clean && len(req.GetCleanSteps()) > 0 {
		return command.Result{}, refusal.Invalid("clean_steps", "they go with clean only")
	}
	if err := legal(v, n, verb); err != nil {
		return command.Result{}, err
	}
	switch verb {
	case lifecycle.Manage:
		err = credentials(n)
	case lifecycle.Deploy, lifecycle.Rebuild:
		body.Instance, err = s.in.Instance(n, verb, req.GetDeploy())
	case lifecycle.Clean:
		if len(req.GetCleanSteps()) == 0 {
			return command.Result{}, refusal.Invalid("clean_steps", "say which steps to run").
				WithHelp("deploy.erase_devices and deploy.erase_devices_metadata; the automated clean is the verb provide")
		}
		body.CleanSteps, err = message.CleanSteps(req.GetCleanSteps())
	}
	if err == nil {
		err = reachable(v, n, verb)
	}
	if err != nil {
		return command.Result{}, err
	}
	return s.cfg.Desk.Queue(ctx, body, req.GetWait())
}

// legal refuses early what Apply would refuse at a node that nobody works on, so that a wrong verb is named
// before wrong arguments are.
func legal(v *state.View, n *node.Node, verb lifecycle.Verb) error {
	if n.Lock.Held() {
		return nil
	}
	if f, ok := v.Flow(n.Flow); ok && verb == lifecycle.Abort && f.Open() && f.Kind == flow.Power {
		return nil // it moves no state
	}
	if _, _, ok := lifecycle.NextVerb(n.Provision, verb); ok {
		return nil
	}
	var names []string
	for _, x := range lifecycle.LegalVerbs(n.Provision) {
		names = append(names, x.String())
	}
	e := fault.New(fault.IllegalState, "", "node %s is %s: %s is illegal", message.Label(n), n.Provision, verb).
		WithDetail(&fault.StateDetail{State: n.Provision.String(), LegalVerbs: names})
	if len(names) == 0 {
		return e.WithHelp("nothing may be asked of it now: wait for the work to end")
	}
	return e.WithHelp("legal now: %s", strings.Join(names, ", "))
}

// reachable is an error if nobody could do the work that the verb starts. Verbs that only stop or release work
// need nobody.
func reachable(v *state.View, n *node.Node, verb lifecycle.Verb) error {
	if verb == lifecycle.Abort || verb == lifecycle.Unhold || n.Owner != "" {
		return nil
	}
	return message.RequireAgent(v, n.Group, n.Driver)
}

// required are the driver_info keys without which a hardware type cannot reach its BMC.
var required = map[string][]string{ // read-only
	"redfish": {"redfish_address", "redfish_username", "redfish_password"},
}

// credentials refuses to manage a node whose driver_info cannot work.
func credentials(n *node.Node) error {
	for _, key := range required[n.Driver] {
		_, sealed := n.Secrets[key]
		if n.DriverInfo[key] == "" && !sealed {
			return refusal.Invalid("node.driver_info."+key, "driver %s needs it, and it is missing", n.Driver).
				WithHelp("farrier node set %s --driver-info %s=...", message.Label(n), key)
		}
	}
	return nil
}

// SetPowerState implements NodeService.
func (s *Service) SetPowerState(ctx context.Context, req *farrierv1.SetPowerStateRequest) (*farrierv1.SetPowerStateResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		v := s.cfg.Desk.View()
		n, err := message.FindNode(v, req.GetNode())
		if err == nil && !slices.Contains(powerTargets, req.GetTarget()) {
			err = refusal.Invalid("target", "%q is not a power target", refusal.Clip(req.GetTarget())).WithHelp("the targets are %s", strings.Join(powerTargets, ", "))
		}
		if err == nil {
			err = credentials(n)
		}
		if err == nil && n.Owner == "" {
			err = message.RequireAgent(v, n.Group, n.Driver)
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Queue(ctx, command.SetPower{Node: n.ID, Target: req.GetTarget()}, req.GetWait())
	})
	if err != nil {
		return nil, fault.Wrap("set power", err)
	}
	out, err := s.show(string(res.Node))
	return &farrierv1.SetPowerStateResponse{Node: out}, err
}

func verbNames() string {
	var names []string
	for _, v := range lifecycle.Verbs() {
		names = append(names, v.String())
	}
	return strings.Join(names, ", ")
}
