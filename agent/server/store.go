package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farrier-project/farrier/agent/journal"
	"github.com/farrier-project/farrier/agent/lease"
	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/uplink"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// leasesEvery is how often changed leases go to the journal. A machine that renews an address which the journal
// missed keeps it: see agent/lease.
const leasesEvery = 10 * time.Second

// savedBoot is a boot attempt as the journal has it.
type savedBoot struct {
	Host    string        `json:"host"`    // the kernel's boot id: boottime means nothing after the host was restarted
	Expires time.Duration `json:"expires"` // boottime
	Left    time.Duration `json:"left"`    // when it was saved
	Assign  []byte        `json:"assign"`  // farrier.v1.Assign, without credentials
}

// hostBoot names this run of the kernel.
func hostBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// rememberBoot writes an open boot attempt to the journal, so that a restart serves it without the coordinators.
func (a *agent) rememberBoot(n *task.Node, as *farrierv1.Assign) {
	if as.GetBoot() == nil {
		a.forgetBoot(n.ID)
		return
	}
	a.mu.Lock()
	same := a.saved[n.ID] == as.GetBoot().GetBootId()+as.GetBoot().GetKeyHash()
	a.saved[n.ID] = as.GetBoot().GetBootId() + as.GetBoot().GetKeyHash()
	a.mu.Unlock()
	if same {
		return
	}
	wire, err := proto.Marshal(as)
	if err == nil {
		wire, err = json.Marshal(savedBoot{Host: hostBoot(), Expires: n.Boot.Expires, Left: as.GetBoot().GetExpiresIn().AsDuration(), Assign: wire})
	}
	if err != nil {
		a.env.Log.Error("boot attempt not remembered", "node", n.ID, "err", err)
		return
	}
	a.journal.Put(journal.Entry{Table: journal.Boots, Key: n.ID, Value: wire})
}

func (a *agent) forgetBoot(node string) {
	a.mu.Lock()
	_, had := a.saved[node]
	delete(a.saved, node)
	a.mu.Unlock()
	if had {
		a.journal.Put(journal.Entry{Table: journal.Boots, Key: node})
	}
}

// restoreBoots serves what was authorised before the restart. The leader's word comes later, and wins.
func (a *agent) restoreBoots() error {
	host, now := hostBoot(), a.env.Clock.Boottime()
	return a.journal.Each(journal.Boots, func(node string, value []byte) error {
		var s savedBoot
		as := new(farrierv1.Assign)
		if err := errors.Join(json.Unmarshal(value, &s), proto.Unmarshal(s.Assign, as)); err != nil {
			return fault.New(fault.Corrupt, "restore boot", "node %s: %w", node, err)
		}
		left := s.Left
		if s.Host == host && host != "" {
			left = s.Expires - now
		}
		a.saved[node] = as.GetBoot().GetBootId() + as.GetBoot().GetKeyHash()
		if left <= 0 {
			a.forgetBoot(node)
			return nil
		}
		as.Boot.ExpiresIn = durationpb.New(left)
		n := uplink.FromAssign(as, now)
		a.mu.Lock()
		a.seen[node] = n.Epoch
		a.mu.Unlock()
		a.tasks.Handle(work.Recalled{Node: node, Epoch: n.Epoch}) // so that Synced without it ends it
		if as.GetBoot().GetKeyHash() != "" {
			// Its ramdisk runs. Should the machine start again, another agent may own it by now: that one answers.
			return a.down.Assign(as)
		}
		m, _ := machineOf(n) // a bad port was told of when the assignment came
		return errors.Join(a.table.Put(m), a.down.Assign(as))
	})
}

// savedLease is an address lease as the journal has it.
type savedLease struct {
	IP    netip.Addr  `json:"ip"`
	State lease.State `json:"state"`
	Epoch uint64      `json:"epoch,omitempty"`
}

func (a *agent) leases() (all []lease.Lease, err error) {
	err = a.journal.Each(journal.Leases, func(mac string, value []byte) error {
		var s savedLease
		hw, err := net.ParseMAC(mac)
		if err = errors.Join(err, json.Unmarshal(value, &s)); err != nil || len(hw) != 6 {
			return fault.New(fault.Corrupt, "restore lease", "%s: %v", mac, err)
		}
		all = append(all, lease.Lease{MAC: [6]byte(hw), IP: s.IP, State: s.State, Epoch: s.Epoch})
		return nil
	})
	return all, err
}

// keepLeases writes changed leases to the journal until ctx ends.
func (a *agent) keepLeases(ctx context.Context) error {
	saved := map[string]savedLease{}
	before, err := a.leases()
	if err != nil {
		return err
	}
	for _, l := range before {
		saved[net.HardwareAddr(l.MAC[:]).String()] = savedLease{l.IP, l.State, l.Epoch}
	}
	t := time.NewTicker(leasesEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			a.saveLeases(saved)
		case <-ctx.Done():
			a.saveLeases(saved)
			return ctx.Err()
		}
	}
}

func (a *agent) saveLeases(saved map[string]savedLease) {
	current := map[string]savedLease{}
	var entries []journal.Entry
	for _, l := range a.dhcp.Leases() {
		mac, s := net.HardwareAddr(l.MAC[:]).String(), savedLease{l.IP, l.State, l.Epoch}
		current[mac] = s
		if saved[mac] == s {
			continue
		}
		if value, err := json.Marshal(s); err == nil {
			entries = append(entries, journal.Entry{Table: journal.Leases, Key: mac, Value: value})
			saved[mac] = s
		}
	}
	for mac := range saved {
		if _, ok := current[mac]; !ok {
			entries = append(entries, journal.Entry{Table: journal.Leases, Key: mac})
			delete(saved, mac)
		}
	}
	if len(entries) > 0 {
		a.journal.Put(entries...)
	}
}
