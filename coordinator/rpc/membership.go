package rpc

import (
	"context"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
)

// Timings of the membership loop.
const (
	membershipEvery = 100 * time.Millisecond
	voterTimeout    = 10 * time.Second
)

// Membership makes voters of the coordinators that joined. A joined coordinator becomes a voter only once it is
// reached and has caught up, because a voter that never comes would cost the cluster its quorum. While this member leads, it looks
// at what ought to be and what is, again and again; it remembers nothing.
type Membership struct {
	API *API
	// Reach tells whether the coordinator with that certificate answers at its Raft address.
	Reach func(ctx context.Context, id, raftAddress string) error
}

// Run looks until ctx ends.
func (m *Membership) Run(ctx context.Context) error {
	tick := time.NewTicker(membershipEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, ok := m.API.Reader.Leading(); ok {
			m.once(ctx)
		}
	}
}

// once adds at most one voter: two changes at a time could leave the cluster without a quorum.
func (m *Membership) once(ctx context.Context) {
	servers, err := m.API.Cluster.Servers()
	if err != nil {
		return
	}
	at := map[string]string{}
	for _, s := range servers {
		if s.Voter {
			at[s.ID] = s.RaftAddress
		}
	}
	var missing []command.Member
	m.API.Reader.View().Members(func(x *command.Member) bool {
		if at[x.ID] != x.RaftAddress && x.RaftAddress != "" && x.ID != m.API.ID {
			missing = append(missing, *x)
		}
		return true
	})
	for _, x := range missing {
		ctx, cancel := context.WithTimeout(ctx, voterTimeout)
		err := m.Reach(ctx, x.ID, x.RaftAddress)
		if err == nil {
			err = m.API.Cluster.AddVoter(ctx, x.ID, x.RaftAddress)
		}
		cancel()
		if err == nil {
			m.API.Log.Info("a coordinator became a voter", "member", x.ID, "address", x.RaftAddress)
			return
		}
		m.API.Log.Debug("a joined coordinator is no voter yet", "member", x.ID, "address", x.RaftAddress, "err", err)
	}
}
