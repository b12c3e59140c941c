package scenario

import (
	"context"
	"fmt"
	"strings"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
)

// lock is the node's lock as the API shows it, nil when it is free.
func (k *kit) lock(ctx context.Context, node string) *farrierv1.Lock {
	res, err := k.Client.Locks.ListLocks(ctx, &farrierv1.ListLocksRequest{Node: node})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	for _, l := range res.GetLocks() {
		return l
	}
	return nil
}

// queued waits until the lock with the purpose has so many waiters.
func (k *kit) queued(node, purpose string, n uint32) *farrierv1.Lock {
	k.t.Helper()
	var l *farrierv1.Lock
	k.until(fmt.Sprintf("%d wait for %q", n, purpose), func(ctx context.Context) bool {
		l = k.lock(ctx, node)
		return l.GetPurpose() == purpose && l.GetQueued() == n
	})
	return l
}

// dotted is a token as people see it.
func dotted(token uint64) string { return fmt.Sprintf("%d.%d", token>>48, token&(1<<48-1)) }

// locks: an operator holds a machine, others wait in order, one does not, and the lock is broken.
func (k *kit) locks() {
	m := k.Machines[plain]
	var held struct {
		Token string `json:"token"`
	}
	k.done("lock", "acquire", m.Name, "--purpose", "firmware by hand", "-o", "json").decode(k.t, &held)
	l := k.lock(k.ctx(), m.Name)
	if fmt.Sprint(l.GetToken()) != held.Token || held.Token == "" {
		k.t.Fatalf("acquire says token %q, the lock is %v", held.Token, l)
	}
	k.refuse(wrong{kind: fault.Locked, status: outcome.ExitConflict, says: []string{m.Name},
		call: func(ctx context.Context) error {
			_, err := k.Client.Nodes.SetPowerState(ctx, &farrierv1.SetPowerStateRequest{Node: m.Name, Target: "power on", Wait: &farrierv1.LockWait{Wait: seconds(0)}})
			return err
		},
		args:   []string{"node", "power", "on", m.Name, "--lock-wait", "0s"},
		detail: &fault.LockDetail{Token: l.GetToken(), Purpose: "firmware by hand"}})
	told := k.farrier("node", "power", "on", m.Name, "--lock-wait", "100ms")
	told.refused(k.t, outcome.ExitConflict, "holder   operator", "purpose  firmware by hand", "since    20", "token    "+dotted(l.GetToken()), "queued   ", "farrier lock")

	second := k.begin("lock", "acquire", m.Name, "--purpose", "cabling", "--lock-wait", "1m")
	k.queued(m.Name, "firmware by hand", 1)
	third := k.begin("node", "power", "on", m.Name, "--lock-wait", "1m", "--wait")
	k.queued(m.Name, "firmware by hand", 2)
	table := k.done("lock", "list").out
	if !strings.Contains(table, "NODE") || !strings.Contains(strings.Join(strings.Fields(table), " "), m.Name+" operator") || !strings.Contains(table, "firmware by hand") {
		k.t.Errorf("lock list is\n%s", table)
	}
	k.done("lock", "release", m.Name, "--token", held.Token)
	k.finish(second).succeeded(k.t)
	l = k.queued(m.Name, "cabling", 1) // the third still waits
	if m.Powered() {
		k.t.Error("somebody powered the machine on while it was held")
	}
	out := k.done("lock", "break", m.Name, "--reason", "the cabling is done, and the man has gone home").out
	if !strings.Contains(out, "broken") {
		k.t.Errorf("lock break says %q", out)
	}
	k.finish(third).succeeded(k.t)
	if n := k.atRest(m.Name); n.GetPowerState() != "power on" || !m.Powered() {
		k.t.Errorf("after the wait the power is %q", n.GetPowerState())
	}
	k.sub("a broken lock is not released", func(k *kit) {
		k.farrier("lock", "release", m.Name, "--token", fmt.Sprint(l.GetToken())).refused(k.t, outcome.ExitConflict, "does not hold node "+m.Name, "farrier lock list")
	})
	k.sub("a break says why", func(k *kit) {
		k.farrier("lock", "break", m.Name).refused(k.t, outcome.ExitUsage, "say why", "--reason")
	})
	k.sub("a wait ends", func(k *kit) {
		k.done("lock", "acquire", m.Name, "--purpose", "lunch")
		l := k.lock(k.ctx(), m.Name)
		k.farrier("node", "power", "off", m.Name, "--lock-wait", "50ms").refused(k.t, outcome.ExitConflict, "lunch")
		k.queued(m.Name, "lunch", 0) // who gave up has left the queue
		k.done("lock", "release", m.Name, "--token", fmt.Sprint(l.GetToken()))
		k.done("node", "power", "off", m.Name, "--wait")
	})
}
