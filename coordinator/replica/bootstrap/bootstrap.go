package bootstrap

import (
	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Cluster makes the first member of a new cluster, once. first is the InitCluster command; the member leads and applies it when it
// is opened. address is its Raft address.
func Cluster(p home.Place, address string, first command.Command) error {
	const op = "bootstrap cluster"
	init, ok := first.Body.(command.InitCluster)
	if !ok || init.ClusterID != p.Cluster || address == "" {
		return fault.New(fault.Invalid, op, "the first command must make cluster %s, and the Raft address must be set", p.Cluster)
	}
	data, err := command.Encode(first)
	if err != nil {
		return err
	}
	return home.Create(p, func(h *home.Home) error {
		rc := raft.DefaultConfig()
		rc.LocalID = raft.ServerID(p.Member)
		if err := raft.BootstrapCluster(rc, h.Log, h.Log, raft.NewDiscardSnapshotStore(), nil, alone(p, address)); err != nil {
			return fault.New(fault.Internal, op, "%w", err)
		}
		return h.Log.StoreLog(&raft.Log{Index: 2, Term: 1, Type: raft.LogCommand, Data: entry.Seal(p.Cluster, entry.Commands, data)})
	})
}

// alone is the configuration of a cluster of one.
func alone(p home.Place, address string) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(p.Member), Address: raft.ServerAddress(address)}}}
}

// Join makes an empty member, which the leader of a cluster then adds.
func Join(p home.Place) error { return home.Create(p, nil) }
