package fleet

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// ListAgents implements AgentService.
func (s *Service) ListAgents(ctx context.Context, req *farrierv1.ListAgentsRequest) (*farrierv1.ListAgentsResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	out := &farrierv1.ListAgentsResponse{}
	v.Agents(func(x *state.Agent) bool {
		if req.GetGroup() == "" || req.GetGroup() == x.Group {
			out.Agents = append(out.Agents, s.agentOut(v, x))
		}
		return true
	})
	return out, nil
}

func (s *Service) agentOut(v *state.View, x *state.Agent) *farrierv1.Agent {
	out := &farrierv1.Agent{Name: x.Name, Group: x.Group, Drivers: x.Drivers, Weight: x.Weight, State: "dead", Session: x.Session,
		Incarnation: x.Incarnation, Nodes: uint64(max(v.NodesWith(x.Name), 0)), Version: x.Version, RegisteredAt: message.Stamp(x.RegisteredAt),
		Address: x.HTTPURL, Alarm: x.Alarm}
	if se, ok := v.Session(x.Session); ok && x.Session != "" {
		out.State, out.FreeWorkers = "live", s.cfg.FreeWorkers(x.Name)
		out.SessionLeft = durationpb.New(max(se.Deadline-v.Elapsed(), 0).Round(time.Millisecond))
	}
	if x.Draining {
		out.State = "draining"
	}
	return out
}

func findAgent(v *state.View, name string) (*state.Agent, error) {
	x, ok := v.Agent(name)
	if !ok {
		return nil, fault.New(fault.NotFound, "find agent", "there is no agent %q", refusal.Clip(name)).WithHelp("`farrier agent list` shows the agents")
	}
	return x, nil
}

// drain starts or ends draining, and answers how many nodes are on their way.
func (s *Service) drain(ctx context.Context, name string, on bool) (*farrierv1.Agent, uint64, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		if _, err := findAgent(s.cfg.Desk.View(), name); err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, command.SetDrain{Agent: name, On: on})
	})
	if err != nil {
		return nil, 0, err
	}
	v := s.cfg.Desk.View()
	x, err := findAgent(v, name)
	if err != nil {
		return nil, 0, err
	}
	return s.agentOut(v, x), res.Count, nil
}

// DrainAgent implements AgentService.
func (s *Service) DrainAgent(ctx context.Context, req *farrierv1.DrainAgentRequest) (*farrierv1.DrainAgentResponse, error) {
	x, moving, err := s.drain(ctx, req.GetAgent(), true)
	return &farrierv1.DrainAgentResponse{Agent: x, Moving: moving}, fault.Wrap("drain agent", err)
}

// UndrainAgent implements AgentService.
func (s *Service) UndrainAgent(ctx context.Context, req *farrierv1.UndrainAgentRequest) (*farrierv1.UndrainAgentResponse, error) {
	x, _, err := s.drain(ctx, req.GetAgent(), false)
	return &farrierv1.UndrainAgentResponse{Agent: x}, fault.Wrap("undrain agent", err)
}

// mayRemove refuses to remove an agent that works: it could come back with a new token only.
func mayRemove(x *farrierv1.Agent) error {
	if x.GetSessionLeft() == nil || x.GetState() == "draining" && x.GetNodes() == 0 {
		return nil
	}
	return fault.New(fault.IllegalState, "", "agent %s is live and has %d nodes", x.GetName(), x.GetNodes()).
		WithHelp("farrier agent drain %s, wait until it has none, stop it; or remove it as it is: farrier agent remove %s --force", x.GetName(), x.GetName())
}

// RemoveAgent implements AgentService.
func (s *Service) RemoveAgent(ctx context.Context, req *farrierv1.RemoveAgentRequest) (*farrierv1.RemoveAgentResponse, error) {
	res, err := s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		v := s.cfg.Desk.View()
		x, err := findAgent(v, req.GetAgent())
		if err != nil && access.Certified(v, identity.RoleAgent, req.GetAgent()) { // it joined and never came
			err = nil
		} else if err == nil && !req.GetForce() {
			err = mayRemove(s.agentOut(v, x))
		}
		if err != nil {
			return command.Result{}, err
		}
		return s.cfg.Desk.Propose(ctx, command.RemoveAgent{Agent: req.GetAgent()})
	})
	return &farrierv1.RemoveAgentResponse{Moved: res.Count}, fault.Wrap("remove agent", err)
}
