package scenario

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/test/lab/machine"
	"github.com/farrier-project/farrier/test/lab/redfish"
	"github.com/farrier-project/farrier/test/lab/site"
)

// ringKit is a rack whose machines wait for a ramdisk that never comes: no agent hears their DHCP requests, so that
// their boot attempts stay open, and the test asks the agents in their place.
type ringKit struct {
	*kit
	owners map[string]string // of all nodes, as they were seen last
}

const (
	fakes      = 12 // nodes without a machine
	fakeDriver = "fake-hardware"
)

func newRingKit(t *testing.T) *ringKit {
	k := &ringKit{kit: startSite(t, site.Config{Machines: 3, Machine: func(_ int, cfg *machine.Config) { cfg.Helpers = nil }})}
	k.settings("bmc_change_deadline", &farrierv1.Settings{BmcChangeDeadline: seconds(2)})
	return k
}

func (k *ringKit) run(name string, fn func(k *ringKit)) {
	ok := k.t.Run(name, func(t *testing.T) {
		sub := &ringKit{kit: &kit{Site: k.Site, t: t, dir: k.dir}, owners: k.owners}
		fn(sub)
		k.owners = sub.owners
	})
	if !ok {
		k.t.FailNow()
	}
}

// await asks until met says yes.
func (k *ringKit) await(what string, met func() bool) {
	k.t.Helper()
	ctx := k.ctx()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-ctx.Done():
			k.t.Fatalf("%s: it never was so", what)
		case <-tick.C:
		}
	}
}

func (k *ringKit) get(name string) *farrierv1.Node {
	k.t.Helper()
	res, err := k.Client.Nodes.GetNode(k.ctx(), &farrierv1.GetNodeRequest{Node: name})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	return res.GetNode()
}

func (k *ringKit) list() []*farrierv1.Node {
	k.t.Helper()
	res, err := k.Client.Nodes.ListNodes(k.ctx(), &farrierv1.ListNodesRequest{})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	return res.GetNodes()
}

// settle waits until no handover is under way, and returns the nodes whose owner changed since the last look, with
// their new owners.
func (k *ringKit) settle() (moved map[string]string) {
	k.t.Helper()
	now := map[string]string{}
	k.await("handovers are over", func() bool {
		done := true
		for _, n := range k.list() {
			now[n.GetName()] = n.GetAgent()
			done = done && n.GetPreviousAgent() == ""
		}
		return done
	})
	moved = map[string]string{}
	for name, owner := range now {
		if owner != k.owners[name] {
			moved[name] = owner
		}
	}
	k.owners = now
	return moved
}

// of lists the nodes that an agent has.
func (k *ringKit) of(agent string) (names []string) {
	for name, owner := range k.owners {
		if owner == agent {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (k *ringKit) fakesOf(agent string) (n int) {
	for _, name := range k.of(agent) {
		if strings.HasPrefix(name, "f") {
			n++
		}
	}
	return n
}

// onlyFrom checks that exactly the nodes that agent had have moved.
func (k *ringKit) onlyFrom(agent string, had []string, moved map[string]string) {
	k.t.Helper()
	if got := slices.Sorted(maps.Keys(moved)); !slices.Equal(got, had) {
		k.t.Errorf("%s had %v, and %v moved", agent, had, moved)
	}
	k.placed()
}

// still looks for moves after the leader has planned several times.
func (k *ringKit) still() (moved map[string]string) {
	k.t.Helper()
	before := k.elapsed()
	k.await("time goes on", func() bool { return k.elapsed() > before+time.Second })
	return k.settle()
}

func (k *ringKit) nothing(what string, moved map[string]string) {
	k.t.Helper()
	if len(moved) != 0 {
		k.t.Errorf("%s moved %v", what, moved)
	}
}

// placed checks that each node is with a live agent that has its hardware type.
func (k *ringKit) placed() {
	k.t.Helper()
	res, err := k.Client.Agents.ListAgents(k.ctx(), &farrierv1.ListAgentsRequest{})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	can := map[string][]string{}
	for _, a := range res.GetAgents() {
		if a.GetState() == "live" {
			can[a.GetName()] = a.GetDrivers()
		}
	}
	for _, n := range k.list() {
		if !slices.Contains(can[n.GetAgent()], n.GetDriver()) {
			k.t.Errorf("%s of type %s is with %q, which offers %v", n.GetName(), n.GetDriver(), n.GetAgent(), can[n.GetAgent()])
		}
	}
}

// waiting brings a machine to an open boot attempt that waits for its ramdisk.
func (k *ringKit) waiting(m *site.Machine) {
	k.t.Helper()
	k.verb(m.Name, "inspect")
	k.await(m.Name+" waits for its ramdisk", func() bool {
		n := k.get(m.Name)
		return n.GetProvisionState() == "inspect wait" && n.GetFlow().GetBootId() != ""
	})
}

// anew ends the machine's flow and opens another one: the node's owner powers it off and on.
func (k *ringKit) anew(m *site.Machine) {
	k.t.Helper()
	k.verb(m.Name, "abort")
	k.reach(m.Name, "inspect failed", nil)
	k.waiting(m)
}

func (k *ringKit) index(agent string) int {
	return slices.IndexFunc(k.Agents, func(p *site.Process) bool { return p.Name == agent })
}

// script asks an agent for the machine's boot script; 0: it does not answer.
func (k *ringKit) script(agent, boot string) int {
	var at struct {
		HTTP string `json:"http"`
	}
	if err := k.Agents[k.index(agent)].Addresses(&at); err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(k.ctx(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+strings.TrimPrefix(at.HTTP, "http://")+"/boot/"+boot+"/ipxe", nil)
	if err != nil {
		k.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// offers asks an agent by DHCP what the machine should boot, as its iPXE would.
func (k *ringKit) offers(agent string, m *site.Machine, within time.Duration) string {
	k.t.Helper()
	mac, err := net.ParseMAC(m.MAC)
	if err != nil {
		k.t.Fatal(err)
	}
	probe, err := machine.New(machine.Config{Dir: k.t.TempDir(), Name: m.Name, IP: m.IP, MAC: mac, UUID: m.Board().UUID, Helpers: []machine.Helper{k.Helper(k.index(agent))}})
	if err != nil {
		k.t.Fatal(err)
	}
	defer probe.Close()
	ctx, cancel := context.WithTimeout(k.ctx(), within)
	defer cancel()
	file, err := probe.BootFile(ctx)
	if err != nil {
		return ""
	}
	return file
}

// served checks that the machine's boot environment is with its owner and with nobody else.
func (k *ringKit) served(m *site.Machine) {
	k.t.Helper()
	n := k.get(m.Name)
	boot := n.GetFlow().GetBootId()
	if boot == "" {
		k.t.Fatalf("%s has no open boot attempt:%s", m.Name, describe(n))
	}
	k.await(n.GetAgent()+" serves "+m.Name, func() bool { return k.script(n.GetAgent(), boot) == http.StatusOK })
	if file := k.offers(n.GetAgent(), m, 10*time.Second); !strings.Contains(file, boot) {
		k.t.Errorf("%s answers DHCP of %s with %q, not with boot attempt %s", n.GetAgent(), m.Name, file, boot)
	}
	for _, p := range k.Agents {
		if p.Name == n.GetAgent() {
			continue
		}
		k.await(p.Name+" does not serve "+m.Name, func() bool {
			code := k.script(p.Name, boot)
			return code == 0 || code == http.StatusNotFound || code == http.StatusGone
		})
		if file := k.offers(p.Name, m, 300*time.Millisecond); file != "" {
			k.t.Errorf("%s answers DHCP of %s with %q, which is with %s", p.Name, m.Name, file, n.GetAgent())
		}
	}
}

// machines lists the machines whose nodes are among those that moved.
func (k *ringKit) machines(moved map[string]string) (ms []*site.Machine) {
	for _, m := range k.Machines {
		if _, ok := moved[m.Name]; ok {
			ms = append(ms, m)
		}
	}
	return ms
}

// followed checks the machines that moved: served by the new owner, and then worked on by it.
func (k *ringKit) followed(moved map[string]string) {
	k.t.Helper()
	ms := k.machines(moved)
	for _, m := range ms {
		k.served(m)
	}
	for _, m := range ms {
		k.anew(m)
		k.served(m)
		k.inTurn(m)
	}
}

// inTurn reads the BMC's record: once a session has changed something, no session that was open before it changes
// anything any more. Each owner has sessions of its own, so no effect comes from two owners at a time.
func (k *ringKit) inTurn(m *site.Machine) {
	k.t.Helper()
	var order []string
	for _, r := range effects(m.BMC) {
		if r.Session == "" || r.Session == "basic" {
			k.t.Errorf("%s: an effect without a session: %+v", m.Name, r)
		}
		if at := slices.Index(order, r.Session); at < 0 {
			order = append(order, r.Session)
		} else if at != len(order)-1 {
			k.t.Errorf("%s: %s came under session %s after %v had acted", m.Name, r.Effect, r.Session, order[at+1:])
		}
	}
}

// effects are the requests that changed the machine.
func effects(b *redfish.BMC) (all []redfish.Request) {
	for _, r := range b.Requests() {
		if r.Effect != "" && !strings.HasPrefix(r.Effect, "session ") {
			all = append(all, r)
		}
	}
	return all
}

func (k *ringKit) createFakes() {
	for i := range fakes {
		_, err := k.Client.Nodes.CreateNode(k.ctx(), &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{
			Name: fmt.Sprintf("f%d", i+1), Driver: fakeDriver, Group: "rack1", DriverInfo: map[string]string{"fake_boot_fault": "silent"},
			Ports: []*farrierv1.Port{{Address: fmt.Sprintf("52:54:00:78:00:%02x", i), PxeEnabled: true}},
		}})
		if err != nil {
			k.t.Fatalf("create f%d: %v", i+1, client.Fault(err))
		}
	}
}

// saying runs the command line and looks for what it has to say.
func (k *ringKit) saying(text string, args ...string) {
	k.t.Helper()
	if a := k.done(args...); !strings.Contains(a.out, text) {
		k.t.Errorf("%s does not say %q:\n%s", a, text, a.out)
	}
}

// rebalance asks for it on the command line and returns the moves by node name. A dry run announces the same before.
func (k *ringKit) rebalance() map[string]string {
	k.t.Helper()
	var announced, done struct {
		Moves []struct{ Node, To string }
	}
	k.done("ring", "rebalance", "--group", "rack1", "--dry-run", "-o", "json").decode(k.t, &announced)
	k.done("ring", "rebalance", "--group", "rack1", "-o", "json").decode(k.t, &done)
	if !slices.Equal(announced.Moves, done.Moves) {
		k.t.Errorf("the dry run announced %v, and %v moved", announced.Moves, done.Moves)
	}
	names := map[string]string{}
	for _, n := range k.list() {
		names[n.GetId()] = n.GetName()
	}
	moves := map[string]string{}
	for _, m := range done.Moves {
		moves[names[m.Node]] = m.To // by the node's id
	}
	return moves
}

func (k *ringKit) gone(agent string) {
	k.t.Helper()
	k.await("the session of "+agent+" is over", func() bool {
		res, err := k.Client.Agents.ListAgents(k.ctx(), &farrierv1.ListAgentsRequest{})
		if err != nil {
			k.t.Fatal(client.Fault(err))
		}
		return !slices.ContainsFunc(res.GetAgents(), func(a *farrierv1.Agent) bool { return a.GetName() == agent && a.GetState() == "live" })
	})
}

func (k *ringKit) again(p *site.Process) {
	k.t.Helper()
	k.restart([]*site.Process{p})
	if err := k.WaitAgents(k.ctx(), len(k.Agents)); err != nil {
		k.t.Fatal(err)
	}
}

// TestRing: a join, a rebalance, a drain, a leave, a death and a change of weight move what must move and nothing else;
// each machine that moved is served and worked on by its new owner alone.
func TestRing(t *testing.T) {
	k := newRingKit(t)
	k.createFakes()
	for _, m := range k.Machines {
		k.enrol(m)
		k.verb(m.Name, "manage")
		k.reach(m.Name, "manageable", nil)
		k.waiting(m)
	}
	for _, busy := range []string{"f1", "f2"} {
		k.verb(busy, "manage")
		k.reach(busy, "manageable", nil)
		k.verb(busy, "inspect")
	}
	k.settle()
	k.placed()
	a, b := k.Agents[0], k.Agents[1]
	if len(k.of(a.Name)) == 0 || len(k.of(b.Name)) == 0 {
		t.Fatalf("the nodes are with %v", k.owners)
	}
	for _, m := range k.Machines {
		k.served(m)
	}
	k.run("join", func(k *ringKit) {
		if err := k.AddAgent(k.ctx(), "drivers: [fake-hardware]\n"); err != nil {
			k.t.Fatal(err)
		}
		k.nothing("a join", k.still())
	})
	k.run("rebalance", func(k *ringKit) {
		moves := k.rebalance()
		moved := k.settle()
		if len(moves) == 0 || !maps.Equal(moves, moved) {
			k.t.Errorf("announced %v, moved %v", moves, moved)
		}
		for name, to := range moved {
			if !strings.HasPrefix(name, "f") || name == "f1" || name == "f2" || to != k.Agents[2].Name {
				k.t.Errorf("%s moved to %s: only resting nodes move, to where there is room", name, to)
			}
		}
		k.placed()
		k.nothing("a second rebalance", k.rebalance())
	})
	k.run("drain", func(k *ringKit) {
		had := k.of(a.Name)
		k.saying("draining", "agent", "drain", a.Name)
		k.saying("draining", "agent", "list")
		moved := k.settle()
		k.onlyFrom(a.Name, had, moved)
		k.followed(moved)
		for name, owner := range moved {
			k.saying(name+" is owned by "+owner, "ring", "explain", name)
		}
		k.saying("takes machines again", "agent", "undrain", a.Name)
		k.nothing("undrain", k.still())
	})
	for _, end := range []struct {
		name string
		end  func(*site.Process)
	}{{"leave", (*site.Process).Stop}, {"death", (*site.Process).Kill}} {
		k.run(end.name, func(k *ringKit) {
			p := b
			if len(k.of(a.Name)) > len(k.of(b.Name)) {
				p = a
			}
			had := k.of(p.Name)
			end.end(p)
			k.gone(p.Name)
			moved := k.settle()
			k.onlyFrom(p.Name, had, moved)
			if len(k.machines(moved)) == 0 {
				k.t.Errorf("%s had no machine: %v", p.Name, had)
			}
			k.followed(moved)
			k.again(p)
			k.nothing("coming back", k.settle())
			for _, m := range k.machines(moved) {
				k.served(m)
			}
		})
	}
	k.run("weight", func(k *ringKit) {
		k.rebalance() // so that what moves later moves for the weight
		k.settle()
		p := k.Agents[2]
		had := k.of(p.Name)
		config := filepath.Join(k.dir, p.Name, "config.yaml")
		text, err := os.ReadFile(config)
		if err == nil {
			err = os.WriteFile(config, append(text, "weight: 4\n"...), 0o600)
		}
		if err != nil {
			k.t.Fatal(err)
		}
		p.Kill()
		k.again(p)
		k.await(p.Name+" has its new weight", func() bool {
			res, err := k.Client.Agents.ListAgents(k.ctx(), &farrierv1.ListAgentsRequest{})
			if err != nil {
				k.t.Fatal(client.Fault(err))
			}
			return slices.ContainsFunc(res.GetAgents(), func(a *farrierv1.Agent) bool { return a.GetName() == p.Name && a.GetWeight() == 4 })
		})
		moved := k.settle()
		for name := range moved {
			if !slices.Contains(had, name) {
				k.t.Errorf("%s moved although only %s restarted", name, p.Name)
			}
		}
		before := maps.Clone(k.owners)
		moves := k.rebalance()
		moved = k.settle()
		if !slices.Contains(slices.Collect(maps.Values(moved)), p.Name) || !maps.Equal(moves, moved) {
			k.t.Errorf("announced %v, moved %v; the weight of %s rose", moves, moved, p.Name)
		}
		for name := range moved { // with weights 1, 1 and 4 the cap of the others is ceil(1.02 × 12/6)
			if from := before[name]; from == p.Name || k.fakesOf(from) < 3 {
				k.t.Errorf("%s moved to %s although %s, which has %d left, was not above its cap", name, moved[name], from, k.fakesOf(from))
			}
		}
		k.nothing("a second rebalance", k.rebalance())
		k.placed()
	})
	k.run("no agent", func(k *ringKit) {
		rests := k.Machines[0]
		k.verb(rests.Name, "abort")
		k.reach(rests.Name, "inspect failed", nil)
		a.Kill()
		b.Kill()
		k.gone(a.Name)
		k.gone(b.Name)
		for name, owner := range k.settle() {
			if strings.HasPrefix(name, "m") != (owner == "") {
				k.t.Errorf("%s is with %q, which has no redfish", name, owner)
			}
		}
		_, err := k.Client.Nodes.SetPowerState(k.ctx(), &farrierv1.SetPowerStateRequest{Node: rests.Name, Target: "power on"})
		if f := client.Fault(err); f == nil || f.Kind != fault.NoAgent {
			k.t.Errorf("a verb on a node that nobody can take: %v", err)
		}
		_, err = k.Client.Nodes.CreateNode(k.ctx(), &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{Name: "late", Driver: "redfish", Group: "rack1", DriverInfo: rests.BMC.DriverInfo()}})
		if f := client.Fault(err); f == nil || f.Kind != fault.NoAgent {
			k.t.Errorf("a node that nobody can take: %v", err)
		}
		k.restart([]*site.Process{a, b})
		if err := k.WaitAgents(k.ctx(), len(k.Agents)); err != nil {
			k.t.Fatal(err)
		}
		moved := k.settle()
		k.waiting(rests)
		k.followed(moved)
		k.placed()
	})
	for _, m := range k.Machines {
		k.inTurn(m)
	}
}

// TestFence: an agent is stopped while its request is on the way to the BMC. The new owner ends its session first, so the
// request is refused when it arrives; when the old agent goes on it causes no effect.
func TestFence(t *testing.T) {
	k := newRingKit(t)
	m := k.Machines[0]
	k.enrol(m)
	k.verb(m.Name, "manage")
	k.reach(m.Name, "manageable", nil)
	old := k.agent(k.get(m.Name).GetAgent())
	power := func(target string) {
		k.t.Helper()
		if _, err := k.Client.Nodes.SetPowerState(k.ctx(), &farrierv1.SetPowerStateRequest{Node: m.Name, Target: target}); err != nil {
			k.t.Fatal(client.Fault(err))
		}
	}
	power("power on")
	k.reach(m.Name, "manageable", nil)
	before := effects(m.BMC)
	if len(before) != 1 || before[0].Effect != "On" {
		t.Fatalf("the BMC's record is %+v", before)
	}
	sessions := m.BMC.Sessions()

	hold, held := make(chan struct{}), make(chan struct{}, 1)
	m.BMC.SetFaults(redfish.Faults{HoldChanges: hold, Held: held})
	power("power off")
	select {
	case <-held:
	case <-k.ctx().Done():
		t.Fatal("no request came")
	}
	old.Pause()
	defer old.Resume()
	m.BMC.SetFaults(redfish.Faults{}) // what is held stays held
	k.reach(m.Name, "manageable", nil)
	n := k.get(m.Name)
	if n.GetAgent() == old.Name || n.GetPowerState() != "power off" {
		t.Fatalf("%s is with %s and says %q", m.Name, n.GetAgent(), n.GetPowerState())
	}
	for _, uri := range m.BMC.Sessions() {
		if slices.Contains(sessions, uri) {
			t.Errorf("session %s of the owner before is still open", uri)
		}
	}
	power("power on") // the late request would undo this
	k.reach(m.Name, "manageable", nil)
	requests := len(m.BMC.Requests())
	close(hold)
	answered := func() (late redfish.Request) {
		for _, r := range m.BMC.Requests()[requests:] {
			if strings.Contains(r.Path, "/Actions/") { // and no reading of its new owner's
				late = r
			}
		}
		return late
	}
	k.await("the late request has its answer", func() bool { return answered().Path != "" })
	if late := answered(); late.Status != http.StatusUnauthorized || late.Effect != "" || !m.Powered() {
		t.Errorf("the late request: %+v, powered %v", late, m.Powered())
	}
	acted := len(effects(m.BMC))
	old.Resume()
	if err := k.WaitAgents(k.ctx(), len(k.Agents)); err != nil {
		t.Fatal(err)
	}
	power("power off") // one more round: whatever the old agent had left to say was said before
	k.reach(m.Name, "manageable", nil)
	k.inTurn(m)
	if all := effects(m.BMC); len(all) != acted+1 || all[acted].Effect != "ForceOff" {
		t.Errorf("after the old agent went on the BMC was told %+v", all[acted:])
	}
	if now := k.get(m.Name); now.GetAgent() != n.GetAgent() {
		t.Errorf("the node went back to %s", now.GetAgent())
	}
}
