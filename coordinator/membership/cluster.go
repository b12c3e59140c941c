package membership

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// leaderAnswer bounds how long a follower waits for the leader's view of the cluster before it gives its own.
const leaderAnswer = 2 * time.Second

// memberSilent is how long a member may be silent before it is an alarm.
const memberSilent = 3 * time.Second

// memberBehind is how long a member may lack what is committed before it is an alarm.
const memberBehind = 10 * time.Second

// GetCluster implements ClusterService. The leader knows who answers it; when none does, this member says what it
// knows itself.
func (s *Service) GetCluster(ctx context.Context, req *farrierv1.GetClusterRequest) (*farrierv1.GetClusterResponse, error) {
	m, known := s.cfg.Leader.Other()
	if !s.cfg.Desk.Leading() && known && access.Of(ctx).Role != identity.RoleCoordinator {
		ctx, cancel := context.WithTimeout(ctx, leaderAnswer)
		defer cancel()
		res, err := fc.NewClusterServiceClient(s.cfg.Leader.Client(), "https://"+m.APIAddress).GetCluster(ctx, req)
		if err == nil {
			return res, nil
		}
		s.cfg.Log.Debug("the leader did not say how the cluster is", "leader", m.ID, "err", err)
	}
	return s.clusterHere()
}

func (s *Service) clusterHere() (*farrierv1.GetClusterResponse, error) {
	v := s.cfg.Desk.View()
	c := v.Cluster()
	term, commit := s.cfg.Status()
	lead, _, _ := s.cfg.Reader.Leader()
	servers, err := s.cfg.Cluster.Servers()
	if err != nil {
		return nil, fault.Wrap("read members", err)
	}
	out := &farrierv1.GetClusterResponse{ClusterId: c.ID, Leader: lead, Term: term, CommitIndex: commit, AppliedIndex: v.Index(),
		Generation: uint64(c.Generation), FeatureLevel: c.Level, Elapsed: durationpb.New(v.Elapsed())}
	known := map[string]bool{}
	leading := s.cfg.Desk.Leading()
	voters := 0
	for _, x := range servers {
		if !leading {
			x.LastContact = 0 // what was heard as a leader of before says nothing
		}
		m, _ := memberByID(v, x.ID)
		known[x.ID] = true
		out.Members = append(out.Members, &farrierv1.Member{Id: x.ID, RaftAddress: x.RaftAddress, ApiAddress: m.APIAddress, RackAddress: m.RackAddress,
			Leader: x.ID == lead, Voter: x.Voter, LastContactMs: uint64(max(x.LastContact.Milliseconds(), 0)), Version: m.Version,
			MatchIndex: x.Match, Behind: x.Behind, LagMs: uint64(max(x.Lag.Milliseconds(), 0))})
		if x.Voter {
			voters++
		}
		switch {
		case x.Silent > memberSilent:
			out.Alarms = append(out.Alarms, fmt.Sprintf("%s has not answered the leader for %v: its process, its machine or its network is gone; one that does not come back: `farrier coordinator remove %s`, then join another",
				x.ID, x.Silent.Truncate(time.Second), x.ID))
		case !x.Voter && leading:
			out.Alarms = append(out.Alarms, fmt.Sprintf("%s has joined and has no vote before it has caught up: it is %d log entries behind", x.ID, x.Behind))
		case x.Lag > memberBehind:
			out.Alarms = append(out.Alarms, fmt.Sprintf("%s answers, and has lacked committed log entries for %v, now %d: it is being sent a snapshot, or its disk is slow; its log says more",
				x.ID, x.Lag.Truncate(time.Second), x.Behind))
		}
	}
	v.Members(func(m *command.Member) bool {
		if !known[m.ID] {
			out.Members = append(out.Members, memberOut(m))
			out.Alarms = append(out.Alarms, m.ID+" has joined and is not a voter yet: it was not reached at "+m.RaftAddress)
		}
		return true
	})
	if voters == 1 {
		out.Alarms = append(out.Alarms, "one coordinator only: when it is lost, so is the cluster; join two more")
	}
	v.Alarms(func(x *state.Alarm) bool {
		out.Alarms = append(out.Alarms, x.Text)
		return true
	})
	return out, nil
}

// memberByID is a member's record, zero when there is none.
func memberByID(v *state.View, id string) (command.Member, bool) {
	m, ok := v.Member(id)
	if !ok {
		return command.Member{}, false
	}
	return *m, true
}

func memberOut(m *command.Member) *farrierv1.Member {
	return &farrierv1.Member{Id: m.ID, RaftAddress: m.RaftAddress, ApiAddress: m.APIAddress, RackAddress: m.RackAddress, Version: m.Version}
}

// RemoveMember implements ClusterService, and takes the coordinator's certificate back. A coordinator may remove itself only; it
// does so before it rejoins, and keeps its certificate.
func (s *Service) RemoveMember(ctx context.Context, req *farrierv1.RemoveMemberRequest) (*farrierv1.RemoveMemberResponse, error) {
	const op = "remove member"
	c := access.Of(ctx)
	if c.Role == identity.RoleCoordinator && c.Name != req.GetId() {
		return nil, fault.New(fault.Denied, op, "a coordinator removes itself only")
	}
	servers, err := s.cfg.Cluster.Servers()
	if err != nil {
		return nil, fault.Wrap(op, err)
	}
	voter := slices.ContainsFunc(servers, func(x Server) bool { return x.ID == req.GetId() })
	rejoins := c.Role == identity.RoleCoordinator
	if voter && req.GetId() == s.cfg.ID && len(servers) > 1 && !rejoins { // the others would hear nothing more of it
		s.cfg.HandOn()
		return nil, fault.New(fault.NotLeader, op, "%s hands the leadership on before it goes", s.cfg.ID)
	}
	_, err = s.cfg.Desk.Once(ctx, func() (command.Result, error) {
		_, member := memberByID(s.cfg.Desk.View(), req.GetId())
		switch {
		case !voter && !member && !access.Certified(s.cfg.Desk.View(), identity.RoleCoordinator, req.GetId()):
			return command.Result{}, fault.New(fault.NotFound, "", "there is no member %q", refusal.Clip(req.GetId())).WithHelp("`farrier coordinator members` lists them")
		case voter && len(servers) == 1:
			return command.Result{}, fault.New(fault.Denied, "", "%s is the last member", req.GetId()).WithHelp("join another one first")
		}
		res, err := s.cfg.Desk.Propose(ctx, command.RemoveMember{ID: req.GetId(), Rejoins: rejoins})
		if fault.Is(err, fault.NotFound) { // a voter without a record
			err = nil
		}
		return res, err
	})
	if err == nil && voter { // also when a first try was cut between the two
		err = s.cfg.Cluster.RemoveServer(ctx, req.GetId())
	}
	return &farrierv1.RemoveMemberResponse{}, fault.Wrap(op, err)
}

// PutMember implements ClusterService. A coordinator says where it answers.
func (s *Service) PutMember(ctx context.Context, req *farrierv1.PutMemberRequest) (*farrierv1.PutMemberResponse, error) {
	const op = "put member"
	m := command.Member{ID: req.GetMember().GetId(), RaftAddress: req.GetMember().GetRaftAddress(), APIAddress: req.GetMember().GetApiAddress(),
		RackAddress: req.GetMember().GetRackAddress(), Version: req.GetMember().GetVersion(), Level: req.GetFeatureLevel()}
	if c := access.Of(ctx); c.Name != m.ID {
		return nil, fault.New(fault.Denied, op, "%s speaks for itself only, not for %q", c.Name, refusal.Clip(m.ID))
	}
	err := s.checkMember(m)
	if err == nil {
		_, err = s.cfg.Desk.Propose(ctx, command.PutMember{Member: m})
	}
	return &farrierv1.PutMemberResponse{}, fault.Wrap(op, err)
}

// checkMember checks a coordinator's level and addresses.
func (s *Service) checkMember(m command.Member) error {
	level := s.cfg.Desk.View().Cluster().Level
	if m.Level < level {
		return fault.New(fault.Version, "", "the cluster is at feature level %d, and %s speaks %d", level, m.ID, m.Level).
			WithHelp("install the release that the other coordinators run")
	}
	if m.Level > level+1 {
		return fault.New(fault.Version, "", "the cluster is at feature level %d, and %s is newer: %d", level, m.ID, m.Level).
			WithHelp("upgrade one feature level at a time")
	}
	for field, addr := range map[string]string{"raft_address": m.RaftAddress, "api_address": m.APIAddress, "rack_address": m.RackAddress} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" || port == "0" || len(addr) > message.MaxName {
			return refusal.Invalid(field, "%q is not host:port", refusal.Clip(addr))
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			return refusal.Invalid(field, "%s is every address: others could not reach it", addr).WithHelp("set the advertised addresses in the configuration")
		}
	}
	return nil
}

// ReadIndex implements ClusterService.
func (s *Service) ReadIndex(ctx context.Context, _ *farrierv1.ReadIndexRequest) (*farrierv1.ReadIndexResponse, error) {
	index, err := s.cfg.Reader.ReadIndex(ctx)
	return &farrierv1.ReadIndexResponse{Index: index}, fault.Wrap("read index", err)
}
