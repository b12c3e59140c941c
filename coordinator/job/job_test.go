package job

import (
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/step"
)

// deploying is a state with node n, whose deploy is at a step of the BMC of that class.
func deploying(class step.Class) *Jobs {
	s := state.New()
	s.Begin(1, command.Header{At: time.Unix(1_790_000_000, 0)})
	s.Root.Settings = command.DefaultSettings()
	s.Agents.Put(&s.Log, &state.Agent{Name: "r1", Group: "default", Drivers: []string{"redfish"}, Session: "s"})
	s.Sessions.Put(&s.Log, &state.Session{ID: "s", Agent: "r1"})
	s.Nodes.Put(&s.Log, &node.Node{
		ID: "n", Group: "default", Driver: "redfish", Owner: "r1", Provision: lifecycle.Deploying, TargetProvision: lifecycle.Active,
		Flow: 1, FlowOpen: true, Token: 1, Lock: node.Lock{Session: "s", Token: 1, Flow: 1},
	})
	s.Flows.Put(&s.Log, &flow.Flow{
		ID: 1, Node: "n", Kind: flow.Deploy, Status: flow.Running, Phase: 1, Boots: 1,
		Steps: []flow.Step{{
			Interface: "management", Name: "set_boot_device", Class: class, Executor: step.BMC, Status: flow.Running, Tries: 1,
			Attempt: flow.Attempt{N: 1, Open: true, Token: 1, Deadline: time.Hour},
		}},
	})
	return New(s)
}

// TestAOneShotWasRepeatedByANewBoot: a set is made again, because the boot overwrote it; a one-shot is not.
func TestAOneShotWasRepeatedByANewBoot(t *testing.T) {
	for class, repeated := range map[step.Class]bool{step.Set: true, step.OneShot: false} {
		s := deploying(class)
		j := s.of("n")
		j.reboot("the machine started anew by itself")
		j.end()
		f := s.Flow(1)
		st := f.Steps[0]
		if (st.Attempt.N == 2 && st.Attempt.Open) != repeated || (f.Error == "") != repeated {
			t.Errorf("class %v: attempt %+v, the flow's error is %q", class, st.Attempt, f.Error)
		}
	}
}

// TestCountsOfAStateThatWasRead: flows that are open when a state comes from a snapshot have their places.
func TestCountsOfAStateThatWasRead(t *testing.T) {
	s := deploying(step.Set)
	if got := s.AtWork(flow.LimitDeploy); got != 1 {
		t.Errorf("%d deploys are counted, one works", got)
	}
	mark := s.Mark()
	s.Forget(s.Node("n"))
	if got := s.AtWork(flow.LimitDeploy); got != 0 {
		t.Errorf("%d deploys are counted after the node went", got)
	}
	if s.Rollback(mark); s.AtWork(flow.LimitDeploy) != 1 || s.Flow(1) == nil {
		t.Error("a rollback did not bring the deploy back")
	}
}
