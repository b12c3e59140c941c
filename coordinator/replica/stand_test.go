package replica

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/pkg/identity"
)

// TestAnEndedLeaderWasWaitedFor: followers whose timeout is far away elect one of them when the leader's process ends, and
// leave a leader alone that ends its connections and still listens.
func TestAnEndedLeaderWasWaitedFor(t *testing.T) {
	ca, err := identity.NewCA(testCluster)
	must(t, err)
	var configs []Config
	for i := range 3 {
		l, name := listen(t), fmt.Sprintf("c%d", i+1)
		configs = append(configs, Config{
			Place: home.Place{Cluster: testCluster, Member: name, Dir: filepath.Join(t.TempDir(), name)}, Listener: l, Advertise: l.Addr().String(),
			Identity: issue(t, ca, identity.Peer{Cluster: testCluster, Role: identity.RoleCoordinator, Name: name}), Election: LANElection,
		})
	}
	must(t, bootstrap.Cluster(configs[0].Place, configs[0].Advertise, initCommand()))
	first, stop := startReal(t, configs[0])
	defer func() { _ = stop() }() // it was cut off: it may complain
	waitLeading(t, first)
	var others []*Replica
	for _, cfg := range configs[1:] {
		must(t, bootstrap.Join(cfg.Place))
		r, stop := startReal(t, cfg)
		defer func() { must(t, stop()) }()
		must(t, first.AddVoter(t.Context(), cfg.Member, cfg.Advertise))
		rc := r.cfg.raft()
		must(t, r.raft.ReloadConfig(raft.ReloadableConfig{TrailingLogs: rc.TrailingLogs, SnapshotInterval: rc.SnapshotInterval,
			SnapshotThreshold: rc.SnapshotThreshold, HeartbeatTimeout: time.Hour, ElectionTimeout: time.Hour}))
		others = append(others, r)
	}
	index, err := first.ReadIndex(t.Context())
	must(t, err)
	for _, r := range others {
		must(t, r.WaitApplied(t.Context(), index))
	}

	term, _ := first.Leading()
	for _, r := range others {
		must(t, r.standFor(t.Context(), "c1")) // it listens
		must(t, r.standFor(t.Context(), "c2")) // it does not lead
	}
	if now, ok := first.Leading(); !ok || now != term {
		t.Fatalf("c1 led in term %d, now %d, %v", term, now, ok)
	}

	two, three := others[0].Subscribe(), others[1].Subscribe()
	defer two.Close()
	defer three.Close()
	_ = first.trans.Close() // as kill -9 does: the port, and every connection
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		for _, r := range others {
			if now, ok := r.Leading(); ok {
				if now <= term {
					t.Errorf("%s leads in term %d, after %d", r.cfg.Member, now, term)
				}
				return
			}
		}
		select {
		case <-two.C:
		case <-three.C:
		case <-ctx.Done():
			t.Fatal("nobody stood for election")
		}
	}
}
