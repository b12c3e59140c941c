package server

import (
	"context"
	"io"
	"time"

	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/replica"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/pkg/identity"
)

// changes is the replica's wake-up as the API and dispatch take it.
type changes struct{ r *replica.Replica }

// Subscribe implements watch.Changes and dispatch.Changes.
func (c changes) Subscribe() (<-chan struct{}, func()) {
	s := c.r.Subscribe()
	return s.C, s.Close
}

// cluster is the replica's configuration as membership takes it.
type cluster struct{ r *replica.Replica }

// Servers implements membership.Cluster.
func (c cluster) Servers() ([]membership.Server, error) {
	var out []membership.Server
	for _, s := range c.r.Servers() {
		x := membership.Server{ID: s.ID, RaftAddress: s.Address, Voter: s.Voter, Silent: s.Silent, Match: s.Match, Behind: s.Behind, Lag: s.Lag}
		if !s.Contact.IsZero() {
			x.LastContact = max(time.Since(s.Contact), time.Millisecond)
		}
		out = append(out, x)
	}
	return out, nil
}

// AddVoter implements membership.Cluster.
func (c cluster) AddVoter(ctx context.Context, id, address string) error {
	return c.r.AddVoter(ctx, id, address)
}

// RemoveServer implements membership.Cluster.
func (c cluster) RemoveServer(ctx context.Context, id string) error { return c.r.RemoveServer(ctx, id) }

// SaveSnapshot implements membership.Cluster.
func (c cluster) SaveSnapshot(ctx context.Context, w io.Writer) error {
	_, err := c.r.SaveSnapshot(ctx, w)
	return err
}

// RestoreSnapshot implements membership.Cluster.
func (c cluster) RestoreSnapshot(ctx context.Context, in io.Reader) error {
	_, err := c.r.RestoreSnapshot(ctx, in)
	return err
}

// replicaConfig is the replica's part of the configuration.
func replicaConfig(cfg config.Config, env Env, ls *listeners, id *identity.Store) replica.Config {
	c := replica.Config{Place: place(cfg, id), Advertise: ls.at.Raft, Listener: ls.raft, Identity: id, Clock: env.Clock, Log: env.Log}
	if cfg.Profile == "lan" {
		c.Election = replica.LANElection
	}
	return c
}

// place is where this coordinator's member of the cluster lives.
func place(cfg config.Config, id *identity.Store) home.Place {
	return home.Place{Cluster: id.Peer().Cluster, Member: cfg.Name, Dir: raftDir(cfg)}
}
