package server

import (
	"context"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/downlink"
	"github.com/farrier-project/farrier/agent/driver"
	"github.com/farrier-project/farrier/agent/imagecache"
	"github.com/farrier-project/farrier/agent/powersync"
	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/uplink"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// takeoverPause is how long a simulated machine that was found running waits with its first contact, so that
// orders which power it off come first.
const takeoverPause = 500 * time.Millisecond

// run is the executor of bmc and agent steps. Simulated machines follow their power.
func (a *agent) run(ctx context.Context, t *task.Exclusive) work.Outcome {
	out := a.runner.Run(ctx, t)
	if !a.types[t.Driver()].Simulated {
		return out
	}
	if out.Facts == nil {
		out.Facts = map[string]string{}
	}
	out.Facts["simulated"] = "true"
	if !out.OK {
		return out
	}
	switch t.Order().Full() {
	case "power.power_off", "power.soft_power_off":
		a.sim.PowerOff(out.Node)
	case "power.power_on":
		a.powerOn(out.Node, 0)
	}
	return out
}

// powerOn starts a simulated machine: with an unclaimed boot attempt it finds the ramdisk.
func (a *agent) powerOn(node string, atLeast time.Duration) {
	if n, ok := a.tasks.Node(node); ok && n.Boot != nil && n.Boot.KeyHash == "" && !a.isTorn(node, n.Boot.ID) {
		a.sim.PowerOn(driver.Contact{Node: node, BootID: n.Boot.ID, Flow: n.Boot.Flow}, n.DriverInfo, atLeast)
	}
}

func (a *agent) simulated(outcomes ...work.Outcome) {
	events := make([]work.Event, len(outcomes))
	for i, o := range outcomes {
		events[i] = work.Finished{Outcome: o}
	}
	a.tasks.Handle(events...)
}

func (a *agent) contact(c driver.Contact) {
	a.up.Edge(uplink.Edge{Node: c.Node, Flow: c.Flow, BootID: c.BootID, Kind: "first_contact", KeyHash: c.KeyHash, Detail: "simulated"})
}

// keeper lets what is served follow the assignments.
type keeper struct{ *agent }

// Assigned implements task.Keeper.
func (k keeper) Assigned(n *task.Node) {
	a := k.agent
	a.mu.Lock()
	_, known := a.seen[n.ID]
	a.seen[n.ID] = n.Epoch
	if n.Boot == nil || a.torn[n.ID] != n.Boot.ID {
		delete(a.torn, n.ID)
	}
	torn := n.Boot != nil && a.torn[n.ID] == n.Boot.ID
	a.mu.Unlock()
	if a.types[n.Driver].Simulated { // its power is this agent's memory, and no news to it
		a.power.Forgotten(n.ID)
		if !known && bmc.ParsePower(n.PowerState) == bmc.PowerOn {
			a.resumeSimulated(n)
		}
		return
	}
	a.power.Assigned(n)
	if torn {
		c := *n
		c.Boot = nil
		n = &c
	}
	m, bad := machineOf(n)
	if bad != nil {
		a.env.Log.Warn("port left out of the boot table", "node", n.ID, "err", bad)
	}
	if err := a.table.Put(m); err != nil {
		a.env.Log.Warn("assignment not served", "node", n.ID, "err", err)
		return
	}
	as := assignOf(n, a.env.Clock.Boottime())
	if err := a.down.Assign(as); err != nil {
		a.env.Log.Warn("assignment not served", "node", n.ID, "err", err)
		return
	}
	a.rememberBoot(n, as)
}

// resumeSimulated takes over a simulated machine that ran under another agent, or before a restart.
func (a *agent) resumeSimulated(n *task.Node) {
	c, err := a.types[n.Driver].Factory.Open(n.Target())
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = c.SetPower(ctx, bmc.PowerOn)
	}
	if err != nil {
		a.env.Log.Info("simulated machine not taken over", "node", n.ID, "err", err)
		return
	}
	a.powerOn(n.ID, takeoverPause)
}

// Forgotten implements task.Keeper.
func (k keeper) Forgotten(node string) {
	a := k.agent
	a.mu.Lock()
	epoch := a.seen[node]
	delete(a.seen, node)
	delete(a.torn, node)
	a.mu.Unlock()
	a.table.Remove(node, epoch)
	a.down.Unassign(node, epoch)
	a.relay.Forget(node)
	a.power.Forgotten(node)
	a.bmcs.Forget(node)
	a.sim.Forget(node)
	a.forgetBoot(node)
}

func (a *agent) isTorn(node, boot string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.torn[node] == boot
}

// machineOf is the node as the boot servers know it. A port whose MAC cannot be read is left out.
func machineOf(n *task.Node) (m bootenv.Machine, bad error) {
	m = bootenv.Machine{Node: n.ID, Name: n.Name, Epoch: n.Epoch}
	for _, p := range n.Ports {
		mac, err := bootenv.ParseMAC(p.Address)
		if err != nil {
			bad = err
			continue
		}
		m.Ports = append(m.Ports, bootenv.Port{MAC: mac, IP: parseIP(p.IP), PXE: p.PXEEnabled})
	}
	if b := n.Boot; b != nil {
		m.Boot = &bootenv.Attempt{ID: b.ID, Secret: b.Secret, Flow: b.Flow, Expires: b.Expires, Claimed: b.KeyHash != ""}
	}
	return m, bad
}

// assignOf is the node as the ramdisks' service knows it: without credentials.
func assignOf(n *task.Node, now time.Duration) *farrierv1.Assign {
	as := &farrierv1.Assign{Node: n.ID, Name: n.Name, Driver: n.Driver, Token: n.Token, Epoch: n.Epoch}
	for _, p := range n.Ports {
		as.Ports = append(as.Ports, &farrierv1.AssignedPort{Address: p.Address, Ip: p.IP, PxeEnabled: p.PXEEnabled})
	}
	if b := n.Boot; b != nil {
		as.Boot = &farrierv1.BootAttempt{
			BootId: b.ID, Secret: b.Secret, KeyHash: b.KeyHash, Flow: b.Flow, Ramdisk: b.Ramdisk, ExpiresIn: durationpb.New(max(b.Expires-now, 0)),
			SystemUuid: b.SystemUUID, Serial: b.Serial,
		}
	}
	return as
}

// boots is the boot environment as boot.prepare and boot.teardown see it.
type boots struct{ *agent }

// Prepare implements steps.Boots. By plain PXE, which is all there is, whoever reads the segment reads the secret.
func (b boots) Prepare(_ context.Context, node, bootID string, machine bmc.Identity) (weak bool, err error) {
	n, ok := b.tasks.Node(node)
	if ok && n.Boot != nil {
		b.down.Expect(n.Boot.ID, downlink.Machine{UUID: machine.UUID, Serial: machine.Serial})
	}
	return ok && !b.types[n.Driver].Simulated, b.prepare(node, bootID)
}

func (b boots) prepare(node, bootID string) error {
	const op = "prepare boot"
	n, ok := b.tasks.Node(node)
	switch {
	case !ok || n.Boot == nil || bootID != "" && n.Boot.ID != bootID:
		return fault.New(fault.Unavailable, op, "the boot attempt is not known here yet")
	case n.Boot.Expires <= b.env.Clock.Boottime():
		return fault.New(fault.Expired, op, "the boot attempt is over")
	case b.types[n.Driver].Simulated:
		return nil
	case b.cfg.Boot.Kernel == "":
		return fault.New(fault.Invalid, op, "this agent has no kernel and ramdisk to serve").
			WithHelp("set boot.kernel and boot.ramdisk in the configuration of agent %s", b.cfg.Name)
	}
	for _, path := range []string{b.cfg.Boot.Kernel, b.cfg.Boot.Ramdisk} {
		if _, err := os.Stat(path); err != nil {
			return fault.New(fault.Invalid, op, "agent %s: %w", b.cfg.Name, err).WithHelp("boot.kernel and boot.ramdisk in the configuration name files that must exist")
		}
	}
	if _, standing := b.table.ByBoot(n.Boot.ID, b.env.Clock.Boottime()); standing != bootenv.Open {
		return fault.New(fault.Unavailable, op, "the boot attempt is not served yet")
	}
	if m, ok := b.table.ByNode(node); ok {
		if _, pxe := m.BootPort(); !pxe {
			return fault.New(fault.Invalid, op, "the node has no port that may boot from the network").
				WithHelp("add a port with the MAC of the machine's boot interface: farrier port create")
		}
	}
	return nil
}

// Teardown implements steps.Boots.
func (b boots) Teardown(_ context.Context, node, bootID string) error {
	n, ok := b.tasks.Node(node)
	if bootID == "" && ok && n.Boot != nil {
		bootID = n.Boot.ID
	}
	if bootID == "" {
		return nil
	}
	b.mu.Lock()
	b.torn[node] = bootID
	b.mu.Unlock()
	b.table.CloseBoot(bootID)
	b.down.CloseBoot(bootID)
	b.relay.Forget(node)
	b.forgetBoot(node)
	return nil
}

// bmcSessions is where the URIs of open BMC sessions go.
type bmcSessions struct{ *agent }

// Opened implements driver.Sessions.
func (b bmcSessions) Opened(ctx context.Context, node, uri string) error {
	return b.up.Opened(ctx, node, uri)
}

// Ended implements driver.Sessions.
func (b bmcSessions) Ended(node, uri string) { b.up.Ended(node, uri) }

// looks is the BMCs as the power sync may use them.
type looks struct{ *agent }

// Glance implements powersync.BMCs.
func (l looks) Glance(ctx context.Context, node string, fn func(context.Context, powersync.Power) error) error {
	if !l.tasks.Resting(node) {
		return fault.New(fault.Busy, "look at the BMC", "the node does not rest, or the session does")
	}
	t, err := l.tasks.AcquireShared(ctx, node, task.Options{Purpose: "power sync"})
	if err != nil {
		return err
	}
	defer t.Release()
	return t.Glance(ctx, func(ctx context.Context, r task.Reader) error { return fn(ctx, r) })
}

func (a *agent) powerSeen(s powersync.Seen) {
	a.up.PowerSeen(s.Node, s.Epoch, s.Power.String(), s.Error)
}

// ramdisks hands orders to the machines, or to the simulator.
type ramdisks struct{ *agent }

// Deliver implements task.Ramdisk.
func (r ramdisks) Deliver(n *task.Node, o work.Order) {
	if r.types[n.Driver].Simulated {
		r.sim.Deliver(n.DriverInfo, o)
		return
	}
	r.relay.Deliver(o)
}

// Cancel implements task.Ramdisk.
func (r ramdisks) Cancel(o work.Order, reason string) {
	if n, ok := r.tasks.Node(o.Node); ok && r.types[n.Driver].Simulated {
		r.sim.Cancel(o, reason)
		return
	}
	r.relay.Cancel(o, reason)
}

// courier is the relay's way to the ramdisks' service.
type courier struct{ *agent }

// Deliver implements steps.Courier.
func (c courier) Deliver(o work.Order) {
	err := c.down.Deliver(uplink.ToOrder(o))
	switch {
	case err == nil:
	case fault.Is(err, fault.StaleToken), fault.Is(err, fault.NotFound):
		c.env.Log.Warn("order not delivered", "node", o.Node, "step", o.Full(), "token", o.Token, "err", err)
	default:
		c.tasks.Handle(work.Finished{Outcome: work.Failed(o, err)})
	}
}

// Cancel implements steps.Courier.
func (c courier) Cancel(o work.Order, reason string) {
	if !c.down.Cancel(uplink.ToOrder(o).GetRef()) {
		c.env.Log.Info("step to cancel is not with the ramdisk", "node", o.Node, "step", o.Full(), "reason", reason)
	}
}

// fetcher is the image cache as the relay sees it.
type fetcher struct{ *agent }

// Fetch implements steps.Images.
func (f fetcher) Fetch(ctx context.Context, url, sha256, format string) error {
	_, err := f.images.Fetch(ctx, imagecache.Source{URL: url, SHA256: sha256, Format: imagecache.Format(format)})
	return err
}

// Hold and Release implement steps.Images.
func (f fetcher) Hold(node, sha256 string) { f.images.Hold(node, sha256) }
func (f fetcher) Release(node string)      { f.images.Release(node) }

func (a *agent) manifest(sha string) (*farrierv1.GetManifestResponse, error) {
	m, err := a.images.Manifest(sha)
	if err != nil {
		return nil, err
	}
	return &farrierv1.GetManifestResponse{
		Sha256: m.SHA256, Format: string(m.Format), FileSize: m.FileSize, ContentSize: m.ContentSize,
		ChunkSize: m.ChunkSize, Chunks: m.Chunks, ContentSha256: m.ContentSHA256,
	}, nil
}

func (a *agent) edge(e *farrierv1.Edge) {
	a.up.Edge(uplink.Edge{Node: e.GetNode(), Flow: e.GetFlow(), BootID: e.GetBootId(), Kind: e.GetKind(), KeyHash: e.GetKeyHash(), Detail: e.GetDetail()})
}

func (a *agent) ramdiskOutcome(o *farrierv1.StepOutcome) {
	out := uplink.FromOutcome(o)
	a.relay.Ended(out.Ref)
	a.tasks.Handle(work.Reported{Outcome: out})
}

func (a *agent) progress(p *farrierv1.StepProgress) {
	ref, q := p.GetRef(), p.GetProgress()
	a.up.Progress(uplink.FromRef(ref), ref.GetToken(), uplink.Progress{Done: q.GetDone(), Total: q.GetTotal(), Rate: q.GetRate(), Skipped: q.GetSkipped(), Text: q.GetText()})
}

func (a *agent) confirmed(ref work.Ref) { a.down.Confirm(uplink.ToRef(ref, 0)) }

func (a *agent) heartbeats() (uint32, []string) {
	s := a.down.Summary()
	return s.GetBeats(), s.GetBoots()
}

// groupChanged tells machines where to go when this agent is gone. This agent is always the first.
func (a *agent) groupChanged(agents []uplink.GroupAgent) {
	self := a.self()
	list := []boot.Agent{{URL: self.RamdiskURL, Pin: self.RamdiskPin}}
	protos := []*farrierv1.GroupAgent{{Name: self.Name, RamdiskUrl: self.RamdiskURL, HttpUrl: self.HTTPURL, RamdiskPin: self.RamdiskPin}}
	for _, g := range agents {
		if g.Name == self.Name {
			continue
		}
		list = append(list, boot.Agent{URL: g.RamdiskURL, Pin: g.RamdiskPin})
		protos = append(protos, &farrierv1.GroupAgent{Name: g.Name, RamdiskUrl: g.RamdiskURL, HttpUrl: g.HTTPURL, RamdiskPin: g.RamdiskPin})
	}
	a.group.Store(&list)
	a.down.SetAgents(protos)
	if len(list) > 1 && a.dhcp != nil {
		a.dhcp.Share()
	}
}

// synced says that all nodes of this agent have been named.
func (a *agent) synced() {
	if a.dhcp != nil {
		a.dhcp.Complete()
	}
}
