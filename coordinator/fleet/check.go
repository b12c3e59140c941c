package fleet

import (
	"context"
	"slices"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// interfaceChecks are what can be told about a node without its BMC, by Ironic's interfaces: what is wrong is what a verb
// would be refused for, or would wait for.
var interfaceChecks = []struct { // read-only
	name string
	may  func(*state.View, *node.Node) error
}{
	{"power", func(_ *state.View, n *node.Node) error { return credentials(n) }},
	{"management", func(v *state.View, n *node.Node) error { return message.RequireAgent(v, n.Group, n.Driver) }},
	{"boot", mayBoot},
	{"deploy", mayDeploy},
}

// ValidateNode implements NodeService.
func (s *Service) ValidateNode(ctx context.Context, req *farrierv1.ValidateNodeRequest) (*farrierv1.ValidateNodeResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	n, err := message.FindNode(v, req.GetNode())
	if err != nil {
		return nil, err
	}
	out := &farrierv1.ValidateNodeResponse{}
	for _, c := range interfaceChecks {
		check := &farrierv1.InterfaceCheck{Interface: c.name}
		if err := c.may(v, n); err != nil {
			check.Error = refusal.Detail(err)
		}
		out.Checks = append(out.Checks, check)
	}
	return out, nil
}

// mayBoot is an error if DHCP would never know the machine.
func mayBoot(v *state.View, n *node.Node) error {
	if slices.ContainsFunc(v.Ports(n.ID), func(p *node.Port) bool { return p.PXEEnabled }) {
		return nil
	}
	return fault.New(fault.Invalid, "", "no port of the node boots from the network, so that no ramdisk can start").
		WithHelp("farrier port create %s MAC", message.Label(n)).WithDetail(&fault.FieldDetail{Field: "node.ports"})
}

// mayDeploy is an error if cleaning and deploying would be refused, whatever the state.
func mayDeploy(_ *state.View, n *node.Node) error {
	switch {
	case n.Maintenance:
		return fault.New(fault.IllegalState, "", "the node is in maintenance: %s", n.MaintenanceReason).
			WithHelp("farrier node maintenance unset %s", message.Label(n))
	case n.Retired:
		return fault.New(fault.IllegalState, "", "the node is retired").WithHelp("farrier node set %s --retired=false", message.Label(n))
	}
	return nil
}
