package server

import (
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/farrier-project/farrier/agent/bmc/fake"
	"github.com/farrier-project/farrier/agent/bmc/redfish"
	"github.com/farrier-project/farrier/agent/boot"
	"github.com/farrier-project/farrier/agent/bootenv"
	"github.com/farrier-project/farrier/agent/config"
	"github.com/farrier-project/farrier/agent/dhcp"
	"github.com/farrier-project/farrier/agent/downlink"
	"github.com/farrier-project/farrier/agent/driver"
	"github.com/farrier-project/farrier/agent/httpboot"
	"github.com/farrier-project/farrier/agent/imagecache"
	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/lease"
	"github.com/farrier-project/farrier/agent/powersync"
	"github.com/farrier-project/farrier/agent/steps"
	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/tftp"
	"github.com/farrier-project/farrier/agent/uplink"
	"github.com/farrier-project/farrier/agent/work"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/step"
)

// maxProgram bounds a boot program, which is kept in memory.
const maxProgram = 16 << 20

// agent is one composed agent.
type agent struct {
	cfg     config.Config
	env     Env
	id      *identity.Store
	journal *journal.Journal
	ls      *listeners

	types  driver.Types
	tasks  *task.Manager
	up     *uplink.Uplink
	bmcs   *driver.BMCs
	power  *powersync.Sync
	sim    *driver.Simulator
	runner *steps.Runner
	relay  *steps.Relay
	table  *bootenv.Table
	down   *downlink.Service
	http   *httpboot.Handler
	dhcp   *dhcp.Server
	tftp   *tftp.Server
	images *imagecache.Cache

	group atomic.Pointer[[]boot.Agent] // the group's ramdisk addresses, this agent first

	mu    sync.Mutex        // guards the fields below
	torn  map[string]string // boot id whose environment was torn down, by node
	seen  map[string]uint64 // epoch of the assignment, by node
	saved map[string]string // boot id and key hash of the attempt in the journal, by node
}

func compose(cfg config.Config, env Env, id *identity.Store, j *journal.Journal, ls *listeners) (*agent, error) {
	a := &agent{cfg: cfg, env: env, id: id, journal: j, ls: ls, table: bootenv.New(), torn: map[string]string{}, seen: map[string]uint64{}, saved: map[string]string{}}
	if err := a.drivers(); err != nil {
		return nil, err
	}
	var err error
	if a.images, err = imagecache.Open(imagecache.Config{
		Dir: cfg.Images.Dir, MaxBytes: cfg.Images.MaxBytes, Allow: cfg.Images.Allow, Deny: cfg.Images.Deny, Log: env.Log,
	}); err != nil {
		return nil, err
	}
	if err := a.bootServers(); err != nil {
		return nil, err
	}
	addresses, err := a.coordinators()
	if err != nil {
		return nil, err
	}
	a.up = uplink.New(a.uplinkConfig(addresses))
	a.sim = driver.NewSimulator(a.simulated, a.contact)
	a.relay = steps.NewRelay(fetcher{a}, courier{a}, func(o work.Outcome) { a.tasks.Handle(work.Finished{Outcome: o}) }, env.Log)
	a.runner = &steps.Runner{Checker: a.types, Boots: boots{a}, Log: env.Log}
	a.power = powersync.New(powersync.Config{
		Every: cfg.PowerSync.Interval, Recovery: cfg.PowerSync.Recovery, BMCs: looks{a}, Saw: a.powerSeen, Clock: env.Clock, Log: env.Log,
	})
	run := task.ExecutorFunc(a.run)
	a.tasks, err = task.New(task.Config{
		Clock: env.Clock, Journal: j, Log: env.Log, Sink: a.up, Locker: a.up, Ramdisk: ramdisks{a}, Caller: a.bmcs, Keeper: keeper{a},
		Executors: map[step.Executor]task.Executor{step.BMC: run, step.Agent: run}, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, err
	}
	return a, a.restoreBoots()
}

// drivers composes the hardware types that the configuration names.
func (a *agent) drivers() (err error) {
	all := driver.NewTypes(driver.Redfish(&redfish.Driver{}), driver.Fake(fake.New()))
	a.types = driver.Types{}
	for _, name := range a.cfg.Drivers {
		t, ok := all[name]
		if !ok {
			return fault.New(fault.Invalid, "drivers", "there is no hardware type %q; there are %v", name, all.Names()).
				WithDetail(&fault.FieldDetail{Field: "drivers"})
		}
		a.types[name] = t
	}
	a.bmcs, err = driver.NewBMCs(a.types, a.journal, bmcSessions{a}, a.cfg.BMCGap, a.env.Log)
	return err
}

// self is this agent as the others of its group see it.
func (a *agent) self() uplink.GroupAgent {
	pin := a.id.Pin()
	return uplink.GroupAgent{
		Name: a.cfg.Name, RamdiskURL: "https://" + a.ls.at.Ramdisk, HTTPURL: "http://" + a.ls.at.HTTP, RamdiskPin: hex.EncodeToString(pin[:]),
	}
}

// coordinators are those that the configuration names, else those that joining and renewing gave.
func (a *agent) coordinators() ([]string, error) {
	if len(a.cfg.Coordinators) > 0 {
		return a.cfg.Coordinators, nil
	}
	known, err := readCoordinators(a.cfg.Data)
	return known.Rack, err
}

func (a *agent) uplinkConfig(addresses []string) uplink.Config {
	self := a.self()
	return uplink.Config{
		Agent: a.cfg.Name, Group: a.cfg.Group, Drivers: a.types.Names(), Weight: a.cfg.Weight, Version: a.env.Version, Level: Level,
		RamdiskURL: self.RamdiskURL, HTTPURL: self.HTTPURL, RamdiskPin: self.RamdiskPin,
		JournalID: a.journal.ID(), Incarnation: a.journal.Incarnation(), Addresses: addresses,
		TLS: identity.ClientTLS(a.id, identity.RoleCoordinator), Clock: a.env.Clock, Log: a.env.Log,
		Heartbeats: a.heartbeats, Welcomed: a.down.SetTimes, Confirmed: a.confirmed, Synced: a.synced, GroupChanged: a.groupChanged, Revoked: a.revoked,
	}
}

// bootServers composes what machines talk to.
func (a *agent) bootServers() error {
	ca, err := a.id.RamdiskCA()
	if err != nil {
		return err
	}
	a.down, err = downlink.New(downlink.Config{
		Store: a.id, CA: ca, OnEdge: a.edge, OnOutcome: a.ramdiskOutcome, OnProgress: a.progress,
		OnClaim: func(boot string) { a.table.Claim(boot) }, Manifest: a.manifest, Images: a.images, Clock: a.env.Clock, Log: a.env.Log,
	})
	if err != nil {
		return err
	}
	a.groupChanged(nil)
	args, err := boot.ParseArgs(a.cfg.Boot.Args)
	if err != nil {
		return err
	}
	programs, err := readPrograms(a.cfg.Boot.Programs)
	if err != nil {
		return err
	}
	a.http = httpboot.New(httpboot.Config{
		Table: a.table, HTTP: "http://" + a.ls.at.HTTP, Kernel: a.cfg.Boot.Kernel, Ramdisk: a.cfg.Boot.Ramdisk, Programs: programs,
		Extra: args, Agents: func() []boot.Agent { return *a.group.Load() }, Images: a.images, Clock: a.env.Clock, Log: a.env.Log, OnBoot: a.down.BootAsked,
	})
	if a.ls.tftp != nil {
		a.tftp = tftp.New(tftp.Config{Files: programs, Log: a.env.Log})
	}
	if a.ls.dhcp != nil {
		return a.composeDHCP()
	}
	return nil
}

func (a *agent) composeDHCP() (err error) {
	d := a.cfg.DHCP
	policy, ok := boot.ParsePolicy(d.Unknown)
	if !ok && d.Unknown != "" {
		return fault.New(fault.Invalid, "dhcp.unknown", "there is no policy %q: it is ignore, address or halt", d.Unknown).
			WithDetail(&fault.FieldDetail{Field: "dhcp.unknown"})
	}
	var subnets []lease.Subnet
	for _, s := range d.Subnets {
		subnet := lease.Subnet{Prefix: s.Prefix, Router: s.Router, DNS: slices.Clone(s.DNS), Lease: s.Lease}
		for _, text := range s.Pool {
			first, last, err := config.ParseRange(text)
			if err != nil {
				return err
			}
			subnet.Pool = append(subnet.Pool, lease.Range{First: first, Last: last})
		}
		subnets = append(subnets, subnet)
	}
	leases, err := a.leases()
	if err != nil {
		return err
	}
	a.dhcp, err = dhcp.New(dhcp.Config{
		Table: a.table, Subnets: subnets, Leases: leases, Rack: boot.Rack{Unknown: policy, HTTP: "http://" + a.ls.at.HTTP},
		Server: d.Server, ReplyPort: d.ReplyPort, Proxy: d.Proxy, Clock: a.env.Clock, Log: a.env.Log, OnBoot: a.down.BootAsked,
	})
	return err
}

// readPrograms reads the boot programs into memory, once.
func readPrograms(paths map[string]string) (map[string][]byte, error) {
	programs := make(map[string][]byte, len(paths))
	for name, path := range paths {
		info, err := os.Stat(path)
		if err == nil && info.Size() > maxProgram {
			err = fault.New(fault.TooLarge, "", "%s has %d bytes, more than %d", path, info.Size(), maxProgram)
		}
		if err == nil {
			programs[name], err = os.ReadFile(path)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "boot.programs", "%s: %w", name, err).WithDetail(&fault.FieldDetail{Field: "boot.programs"})
		}
	}
	return programs, nil
}

// parseIP is the address, or the zero Addr.
func parseIP(text string) netip.Addr {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return ip
}
