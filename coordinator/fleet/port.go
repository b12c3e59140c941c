package fleet

import (
	"context"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// CreatePort implements PortService.
func (s *Service) CreatePort(ctx context.Context, req *farrierv1.CreatePortRequest) (*farrierv1.CreatePortResponse, error) {
	_, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		n, err := message.FindNode(s.cfg.Desk.View(), req.GetPort().GetNode())
		if err != nil {
			return command.Result{}, err
		}
		p, err := s.in.NewPort("port", n.ID, req.GetPort())
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Queue(ctx, command.CreatePort{Port: p}, req.GetWait())
	})
	if err != nil {
		return nil, fault.Wrap("create port", err)
	}
	out, err := s.showPort(req.GetPort().GetAddress()) // a repeat of the request draws another id, and the MAC is as unique
	return &farrierv1.CreatePortResponse{Port: out}, err
}

func (s *Service) showPort(idOrMAC string) (*farrierv1.Port, error) {
	v := s.cfg.Desk.View()
	p, err := message.FindPort(v, idOrMAC)
	if err != nil {
		return nil, err
	}
	return message.Port(v, p), nil
}

// GetPort implements PortService.
func (s *Service) GetPort(ctx context.Context, req *farrierv1.GetPortRequest) (*farrierv1.GetPortResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	p, err := message.FindPort(v, req.GetPort())
	if err != nil {
		return nil, err
	}
	return &farrierv1.GetPortResponse{Port: message.Port(v, p)}, nil
}

// ListPorts implements PortService: of one node, or of all in the order of their ids.
func (s *Service) ListPorts(ctx context.Context, req *farrierv1.ListPortsRequest) (*farrierv1.ListPortsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if req.GetPageToken() != "" && !message.IsUUID(req.GetPageToken()) {
		return nil, refusal.Invalid("page_token", "it is not one that a list returned")
	}
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	out := &farrierv1.ListPortsResponse{}
	if req.GetNode() != "" {
		n, err := message.FindNode(v, req.GetNode())
		if err != nil {
			return nil, err
		}
		for _, p := range v.Ports(n.ID) {
			out.Ports = append(out.Ports, message.Port(v, p))
		}
		return out, nil
	}
	v.AllPorts(req.GetPageToken(), func(p *node.Port) bool {
		if len(out.Ports) == size {
			out.NextPageToken = out.Ports[size-1].GetId()
			return false
		}
		out.Ports = append(out.Ports, message.Port(v, p))
		return true
	})
	return out, nil
}

// UpdatePort implements PortService.
func (s *Service) UpdatePort(ctx context.Context, req *farrierv1.UpdatePortRequest) (*farrierv1.UpdatePortResponse, error) {
	_, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		body, err := message.ChangePort(s.cfg.Desk.View(), req)
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Queue(ctx, body, req.GetWait())
	})
	if err != nil {
		return nil, fault.Wrap("update port", err)
	}
	out, err := s.showPort(message.PortNameOf(req.GetPort()))
	return &farrierv1.UpdatePortResponse{Port: out}, err
}

// DeletePort implements PortService.
func (s *Service) DeletePort(ctx context.Context, req *farrierv1.DeletePortRequest) (*farrierv1.DeletePortResponse, error) {
	_, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		p, err := message.FindPort(s.cfg.Desk.View(), req.GetPort())
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Queue(ctx, command.DeletePort{Port: p.ID}, req.GetWait())
	})
	return &farrierv1.DeletePortResponse{}, fault.Wrap("delete port", err)
}
