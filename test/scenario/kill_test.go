package scenario

import (
	"context"
	"maps"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/lab/site"
)

func seconds(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }

func (k *kit) settings(path string, s *farrierv1.Settings) {
	k.t.Helper()
	if _, err := k.Client.Cluster.UpdateSettings(k.ctx(), &farrierv1.UpdateSettingsRequest{Settings: s, Mask: &fieldmaskpb.FieldMask{Paths: []string{path}}}); err != nil {
		k.t.Fatalf("set %s: %v", path, client.Fault(err))
	}
}

// victim is what is killed in the middle of the work. kill returns what a supervisor has to start again.
type victim struct {
	name string
	kill func(k *kit, ctx context.Context, m *site.Machine, n *farrierv1.Node) []*site.Process
	// restarts tells whether the machine itself starts anew: then the ramdisk's memory of the image is gone, but what is in
	// place is found by its digest.
	restarts bool
	// late: what was killed is started again only after the work, so that another agent takes over.
	late bool
	// back starts again what was killed; default the supervisor's part.
	back func(k *kit, ps []*site.Process)
	// sessions stay: whoever leads, an agent's work goes on.
	sessions bool
}

func killAgent(k *kit, _ context.Context, _ *site.Machine, n *farrierv1.Node) []*site.Process {
	p := k.agent(n.GetAgent())
	p.Kill()
	return []*site.Process{p}
}

func killLeader(k *kit, ctx context.Context, _ *site.Machine, _ *farrierv1.Node) []*site.Process {
	p := k.leader(ctx)
	p.Kill()
	return []*site.Process{p}
}

// resume ends a Pause, which stands for a machine that lost its power or its network: no connection ends.
func resume(_ *kit, ps []*site.Process) {
	for _, p := range ps {
		p.Resume()
	}
}

var victims = []victim{ // read-only
	{name: "agent", kill: killAgent},
	{name: "agent for good", kill: killAgent, late: true},
	{name: "silent agent", late: true, back: resume, kill: func(k *kit, _ context.Context, _ *site.Machine, n *farrierv1.Node) []*site.Process {
		p := k.agent(n.GetAgent())
		p.Pause()
		return []*site.Process{p}
	}},
	{name: "leader", kill: killLeader, sessions: true},
	{name: "silent leader", sessions: true, late: true, back: resume, kill: func(k *kit, ctx context.Context, _ *site.Machine, _ *farrierv1.Node) []*site.Process {
		p := k.leader(ctx)
		p.Pause()
		return []*site.Process{p}
	}},
	{name: "agent and leader", kill: func(k *kit, ctx context.Context, m *site.Machine, n *farrierv1.Node) []*site.Process {
		return append(killAgent(k, ctx, m, n), killLeader(k, ctx, m, n)...)
	}},
	{name: "machine", restarts: true, kill: func(k *kit, _ context.Context, m *site.Machine, _ *farrierv1.Node) []*site.Process {
		if err := m.Reset(); err != nil {
			k.t.Errorf("reset %s: %v", m.Name, err)
		}
		return nil
	}},
}

// TestWorkSurvivesKills deploys and undeploys a machine while the owning agent, the leader, both, or the machine itself
// are killed, once in the middle of the image write and once in the middle of the wipe. It reaches active with a
// byte-exact disk, and available again, with no human help; the BMC sees no more than the work needs, and no chunk of the
// image is written twice.
func TestWorkSurvivesKills(t *testing.T) {
	k := start(t, 1)
	k.settings("session_ttl", &farrierv1.Settings{SessionTtl: seconds(3)}) // a machine that runs all tests at once stalls now and then
	m := k.Machines[0]
	k.enrol(m)
	k.verb(m.Name, "manage")
	k.reach(m.Name, "manageable", nil)
	k.verb(m.Name, "provide")
	k.reach(m.Name, "available", nil)
	for _, v := range victims {
		t.Run(v.name+" during the image write", func(t *testing.T) {
			k := &kit{Site: k.Site, t: t, dir: k.dir}
			logged, starts := len(k.writes(m)), m.Counters().Starts
			n := k.killDuring(m, v, "active", "write_image", "active")
			k.exact(m)
			if again := k.twice(k.writes(m)[logged:]); !v.restarts && len(again) > 0 {
				t.Errorf("chunks %v were written twice", again)
			}
			k.startsWere(m, v, starts, 2, n) // the ramdisk, then the disk
		})
		t.Run(v.name+" during the wipe", func(t *testing.T) {
			k := &kit{Site: k.Site, t: t, dir: k.dir}
			starts := m.Counters().Starts
			n := k.killDuring(m, v, "deleted", "erase_devices", "available")
			if n.GetWipe().GetMethod() != "overwrite" || n.GetWipe().GetSampled() == 0 {
				t.Errorf("wipe record %v", n.GetWipe())
			}
			k.startsWere(m, v, starts, 1, n)
		})
	}
	k.verb(m.Name, "active")
	k.reach(m.Name, "active", nil)
	k.exact(m)
}

// killDuring asks for the verb, kills in the middle of the step, starts again what was killed, and waits for the end.
func (k *kit) killDuring(m *site.Machine, v victim, verb, step, want string) *farrierv1.Node {
	k.t.Helper()
	var killed []*site.Process
	happened := false
	before := k.sessions()
	back := v.back
	if back == nil {
		back = (*kit).restart
	}
	open := k.hold(m)
	defer open()
	seen, wait := during(step, func(n *farrierv1.Node) {
		killed = v.kill(k, k.ctx(), m, n)
		open()
		happened = true
		if !v.late {
			back(k, killed)
		}
	})
	k.verb(m.Name, verb)
	n := k.reach(m.Name, want, seen)
	wait()
	if after := k.sessions(); v.sessions && !maps.Equal(before, after) {
		k.t.Errorf("the agents' sessions were %v, now they are %v", before, after)
	}
	if v.late {
		back(k, killed)
	}
	if !happened {
		k.t.Fatalf("%s was over before anything was killed:%s", step, describe(n))
	}
	if err := k.WaitAgents(k.ctx(), len(k.Agents)); err != nil {
		k.t.Fatal(err)
	}
	return n
}

// sessions are those of the live agents.
func (k *kit) sessions() map[string]string {
	k.t.Helper()
	res, err := k.Client.Agents.ListAgents(k.ctx(), &farrierv1.ListAgentsRequest{})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	ids := map[string]string{}
	for _, a := range res.GetAgents() {
		ids[a.GetName()] = a.GetSession()
	}
	return ids
}

// restart is the supervisor's part.
func (k *kit) restart(ps []*site.Process) {
	for _, p := range ps {
		if err := p.Start(k.ctx()); err != nil {
			k.t.Errorf("start %s again: %v", p.Name, err)
		}
	}
}

// startsWere checks that the machine started no more often than the work needs.
func (k *kit) startsWere(m *site.Machine, v victim, before, want int, n *farrierv1.Node) {
	k.t.Helper()
	if v.restarts {
		want += 2 // our reset, and the ramdisk that takes the work on
	}
	if got := m.Counters().Starts - before; got != want {
		k.t.Errorf("the machine was started %d times instead of %d:%s", got, want, describe(n))
	}
	for _, e := range m.BMC.Effects("ForceRestart", "GracefulRestart", "PowerCycle", "Nmi") {
		k.t.Errorf("a flow used %s", e)
	}
}
