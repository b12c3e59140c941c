package membership

import (
	"context"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
)

// Timings of the look after voters.
const (
	votersEvery  = 100 * time.Millisecond
	voterTimeout = 10 * time.Second
)

// Reach tells whether the coordinator with that certificate answers at its Raft address.
type Reach func(ctx context.Context, id, raftAddress string) error

// KeepVoters makes voters of the coordinators that joined, until ctx ends. A joined coordinator becomes a voter only once it is
// reached and has caught up, because a voter that never comes would cost the cluster its quorum. While this member leads, it looks
// at what ought to be and what is, again and again; it remembers nothing.
func (s *Service) KeepVoters(ctx context.Context, reach Reach) error {
	tick := time.NewTicker(votersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.cfg.Desk.Leading() {
			s.addVoter(ctx, reach)
		}
	}
}

// addVoter adds at most one voter: two changes at a time could leave the cluster without a quorum.
func (s *Service) addVoter(ctx context.Context, reach Reach) {
	servers, err := s.cfg.Cluster.Servers()
	if err != nil {
		return
	}
	at := map[string]string{}
	for _, x := range servers {
		if x.Voter {
			at[x.ID] = x.RaftAddress
		}
	}
	var missing []command.Member
	s.cfg.Desk.View().Members(func(x *command.Member) bool {
		if at[x.ID] != x.RaftAddress && x.RaftAddress != "" && x.ID != s.cfg.ID {
			missing = append(missing, *x)
		}
		return true
	})
	for _, x := range missing {
		ctx, cancel := context.WithTimeout(ctx, voterTimeout)
		err := reach(ctx, x.ID, x.RaftAddress)
		if err == nil {
			err = s.cfg.Cluster.AddVoter(ctx, x.ID, x.RaftAddress)
		}
		cancel()
		if err == nil {
			s.cfg.Log.Info("a coordinator became a voter", "member", x.ID, "address", x.RaftAddress)
			return
		}
		s.cfg.Log.Debug("a joined coordinator is no voter yet", "member", x.ID, "address", x.RaftAddress, "err", err)
	}
}
