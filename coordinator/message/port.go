package message

import (
	"fmt"
	"slices"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
)

// NewPort checks a port of a node to be created. field is the path of the port in its request.
func (r *Reader) NewPort(field string, id node.ID, in *farrierv1.Port) (node.Port, error) {
	p := node.Port{ID: strings.ToLower(in.GetId()), Node: id, Name: in.GetName(), PXEEnabled: in.GetPxeEnabled(), IP: in.GetIp()}
	if p.ID == "" {
		p.ID = r.NewID()
	}
	if !IsUUID(p.ID) {
		return p, refusal.Invalid(field+".id", "%q is not a UUID", refusal.Clip(in.GetId()))
	}
	mac, err := normalMAC(field+".address", in.GetAddress())
	if err != nil {
		return p, err
	}
	p.Address = mac
	if p.Name != "" {
		if err := Name(field+".name", p.Name); err != nil {
			return p, err
		}
	}
	return p, checkIP(field+".ip", p.IP)
}

// newPorts checks the ports of a node to be created. When none of them says that it boots, all do: a machine
// without a port that boots could not be worked on.
func (r *Reader) newPorts(id node.ID, in []*farrierv1.Port) ([]node.Port, error) {
	if len(in) > maxPorts {
		return nil, refusal.Invalid("node.ports", "at most %d ports are allowed", maxPorts)
	}
	pxe := slices.ContainsFunc(in, (*farrierv1.Port).GetPxeEnabled)
	out := make([]node.Port, 0, len(in))
	seen := map[string]bool{}
	for i, p := range in {
		port, err := r.NewPort(fmt.Sprintf("node.ports[%d]", i), id, p)
		if err != nil {
			return nil, err
		}
		if seen[port.Address] {
			return nil, refusal.Invalid(fmt.Sprintf("node.ports[%d].address", i), "%s is there twice", port.Address)
		}
		seen[port.Address] = true
		port.PXEEnabled = port.PXEEnabled || !pxe
		out = append(out, port)
	}
	return out, nil
}

// ChangePort makes the command of an update of a port.
func ChangePort(v *state.View, req *farrierv1.UpdatePortRequest) (command.UpdatePort, error) {
	in := req.GetPort()
	old, err := FindPort(v, PortNameOf(in))
	if err != nil {
		return command.UpdatePort{}, err
	}
	if len(req.GetMask().GetPaths()) == 0 {
		return command.UpdatePort{}, refusal.Invalid("mask", "name the fields to change")
	}
	body := command.UpdatePort{Port: *old, Fields: req.GetMask().GetPaths(), Version: req.GetVersion()}
	for _, path := range body.Fields {
		switch path {
		case "address":
			body.Port.Address, err = normalMAC("port.address", in.GetAddress())
		case "name":
			if body.Port.Name = in.GetName(); body.Port.Name != "" {
				err = Name("port.name", in.GetName())
			}
		case "pxe_enabled":
			body.Port.PXEEnabled = in.GetPxeEnabled()
		case "ip":
			body.Port.IP, err = in.GetIp(), checkIP("port.ip", in.GetIp())
		default:
			err = refusal.Invalid("mask", "%q cannot be changed", refusal.Clip(path)).WithHelp("what can be: address, name, pxe_enabled, ip")
		}
		if err != nil {
			return body, err
		}
	}
	return body, nil
}

// PortNameOf is how a request names a port. The MAC address is a name only where it is not changed.
func PortNameOf(p *farrierv1.Port) string {
	if p.GetId() != "" {
		return p.GetId()
	}
	return p.GetAddress()
}

// Port is the port as callers see it.
func Port(v *state.View, p *node.Port) *farrierv1.Port {
	out := &farrierv1.Port{Id: p.ID, Node: string(p.Node), Address: p.Address, Name: p.Name, PxeEnabled: p.PXEEnabled, Ip: p.IP, Version: p.Version}
	if n, ok := v.Node(p.Node); ok {
		out.NodeName = n.Name
	}
	return out
}
