package rpc

import (
	"context"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// portService implements PortService.
type portService struct{ *API }

// newPort checks a port to be created.
func newPort(field string, id node.ID, in *farrierv1.Port) (node.Port, error) {
	p := node.Port{ID: strings.ToLower(in.GetId()), Node: id, Name: in.GetName(), PXEEnabled: in.GetPxeEnabled(), IP: in.GetIp()}
	if p.ID == "" {
		p.ID = newUUID()
	}
	if !isUUID(p.ID) {
		return p, refusal.Invalid(field+".id", "%q is not a UUID", refusal.Clip(in.GetId()))
	}
	mac, err := normalMAC(field+".address", in.GetAddress())
	if err != nil {
		return p, err
	}
	p.Address = mac
	if p.Name != "" {
		if err := checkName(field+".name", p.Name); err != nil {
			return p, err
		}
	}
	return p, checkIP(field+".ip", p.IP)
}

// CreatePort implements PortService.
func (s portService) CreatePort(ctx context.Context, req *farrierv1.CreatePortRequest) (*farrierv1.CreatePortResponse, error) {
	_, err := s.once(ctx, func() (command.Result, error) {
		n, err := resolve(s.Reader.View(), req.GetPort().GetNode())
		if err != nil {
			return command.Result{}, err
		}
		p, err := newPort("port", n.ID, req.GetPort())
		if err != nil {
			return command.Result{}, err
		}
		return s.queue(ctx, command.CreatePort{Port: p}, req.GetWait())
	})
	if err != nil {
		return nil, fault.Wrap("create port", err)
	}
	out, err := s.showPort(req.GetPort().GetAddress()) // a repeat of the request draws another id, and the MAC is as unique
	return &farrierv1.CreatePortResponse{Port: out}, err
}

func (a *API) showPort(idOrMAC string) (*farrierv1.Port, error) {
	v := a.Reader.View()
	p, err := resolvePort(v, idOrMAC)
	if err != nil {
		return nil, err
	}
	return namedPort(v, p), nil
}

// namedPort is a port with its node's name.
func namedPort(v *state.View, p *node.Port) *farrierv1.Port {
	out := portOut(p)
	if n, ok := v.Node(p.Node); ok {
		out.NodeName = n.Name
	}
	return out
}

func resolvePort(v *state.View, idOrMAC string) (*node.Port, error) {
	if p, ok := v.Port(strings.ToLower(idOrMAC)); ok {
		return p, nil
	}
	if mac, err := normalMAC("port", idOrMAC); err == nil {
		if p, ok := v.PortByMAC(mac); ok {
			return p, nil
		}
	}
	return nil, fault.New(fault.NotFound, "find port", "there is no port %q", refusal.Clip(idOrMAC)).
		WithHelp("name a port by its UUID or its MAC address")
}

// GetPort implements PortService.
func (s portService) GetPort(ctx context.Context, req *farrierv1.GetPortRequest) (*farrierv1.GetPortResponse, error) {
	v, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	p, err := resolvePort(v, req.GetPort())
	if err != nil {
		return nil, err
	}
	return &farrierv1.GetPortResponse{Port: namedPort(v, p)}, nil
}

// ListPorts implements PortService: of one node, or of all in the order of their ids.
func (s portService) ListPorts(ctx context.Context, req *farrierv1.ListPortsRequest) (*farrierv1.ListPortsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if req.GetPageToken() != "" && !isUUID(req.GetPageToken()) {
		return nil, refusal.Invalid("page_token", "it is not one that a list returned")
	}
	v, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	out := &farrierv1.ListPortsResponse{}
	if req.GetNode() != "" {
		n, err := resolve(v, req.GetNode())
		if err != nil {
			return nil, err
		}
		for _, p := range v.Ports(n.ID) {
			out.Ports = append(out.Ports, namedPort(v, p))
		}
		return out, nil
	}
	v.AllPorts(req.GetPageToken(), func(p *node.Port) bool {
		if len(out.Ports) == size {
			out.NextPageToken = out.Ports[size-1].GetId()
			return false
		}
		out.Ports = append(out.Ports, namedPort(v, p))
		return true
	})
	return out, nil
}

// UpdatePort implements PortService.
func (s portService) UpdatePort(ctx context.Context, req *farrierv1.UpdatePortRequest) (*farrierv1.UpdatePortResponse, error) {
	_, err := s.once(ctx, func() (command.Result, error) {
		body, err := s.changePort(req)
		if err != nil {
			return command.Result{}, err
		}
		return s.queue(ctx, body, req.GetWait())
	})
	if err != nil {
		return nil, fault.Wrap("update port", err)
	}
	out, err := s.showPort(portName(req.GetPort()))
	return &farrierv1.UpdatePortResponse{Port: out}, err
}

// portName is how a request names a port. The MAC address is a name only where it is not changed.
func portName(p *farrierv1.Port) string {
	if p.GetId() != "" {
		return p.GetId()
	}
	return p.GetAddress()
}

func (a *API) changePort(req *farrierv1.UpdatePortRequest) (command.UpdatePort, error) {
	in := req.GetPort()
	old, err := resolvePort(a.Reader.View(), portName(in))
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
				err = checkName("port.name", in.GetName())
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

// DeletePort implements PortService.
func (s portService) DeletePort(ctx context.Context, req *farrierv1.DeletePortRequest) (*farrierv1.DeletePortResponse, error) {
	_, err := s.once(ctx, func() (command.Result, error) {
		p, err := resolvePort(s.Reader.View(), req.GetPort())
		if err != nil {
			return command.Result{}, err
		}
		return s.queue(ctx, command.DeletePort{Port: p.ID}, req.GetWait())
	})
	return &farrierv1.DeletePortResponse{}, fault.Wrap("delete port", err)
}
