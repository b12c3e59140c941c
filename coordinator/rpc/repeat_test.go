package rpc_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

// repeats are the clients of one operator whose requests all have one id.
type repeats struct {
	nodes        fc.NodeServiceClient
	ports        fc.PortServiceClient
	locks        fc.LockServiceClient
	ring         fc.RingServiceClient
	agents       fc.AgentServiceClient
	clusters     fc.ClusterServiceClient
	certificates fc.CertificateServiceClient
}

// unrepeated are the changing methods that no table of repeats needs: what makes their repeat harmless is said.
var unrepeated = map[string]string{ // read-only
	fc.ClusterServiceRestoreSnapshotProcedure: "a stream has no request id",
	fc.ClusterServiceSaveSnapshotProcedure:    "it changes nothing",
	fc.ClusterServicePutMemberProcedure:       "it says the same again; coordinators send no id",
	fc.JoinServiceJoinProcedure:               "the token is good for the same key again",
	fc.JoinServiceRenewProcedure:              "it changes nothing",
	fc.WatchServiceWatchProcedure:             "it changes nothing",
}

// repeats are clients of alice whose calls are all the same request.
func repeatsOf(w *world.World, member string) repeats {
	http, url, id := w.As(identity.RoleOperator, "alice"), w.URL[member], world.RequestID("0123456789abcdef", 1)
	return repeats{
		nodes: fc.NewNodeServiceClient(http, url, id), ports: fc.NewPortServiceClient(http, url, id),
		locks: fc.NewLockServiceClient(http, url, id), ring: fc.NewRingServiceClient(http, url, id),
		agents: fc.NewAgentServiceClient(http, url, id), clusters: fc.NewClusterServiceClient(http, url, id),
		certificates: fc.NewCertificateServiceClient(http, url, id),
	}
}

// TestARepeatIsAnsweredAlthoughItsConditionsAreGone: a request that was done makes its own repeat look impossible: the
// node is deleted, the name is another, nobody is there any more. A repeat is not checked; it has the first answer.
func TestARepeatIsAnsweredAlthoughItsConditionsAreGone(t *testing.T) {
	const id = "11111111-2222-4333-8444-555555555555"
	removeAgent := func(t *testing.T, w *world.World) { w.Apply(t, command.RemoveAgent{Agent: "a1"}) }
	deleted := func(t *testing.T, w *world.World) { w.Apply(t, command.DeleteNode{Node: only(t, w)}) }
	rows := []struct {
		procedure string
		before    func(t *testing.T, w *world.World)
		call      func(context.Context, repeats) (proto.Message, error)
		after     func(t *testing.T, w *world.World) // what else would refuse the repeat
	}{
		{fc.NodeServiceCreateNodeProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.CreateNode(ctx, &farrierv1.CreateNodeRequest{Node: world.Web(9)})
		}, nil},
		{fc.NodeServiceCreateNodesProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.CreateNodes(ctx, &farrierv1.CreateNodesRequest{Nodes: []*farrierv1.Node{world.Web(8), world.Web(9)}})
		}, removeAgent},
		{fc.NodeServiceUpdateNodeProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.UpdateNode(ctx, &farrierv1.UpdateNodeRequest{Node: &farrierv1.Node{Id: "web-1", Name: "renamed"}, Mask: &fieldmaskpb.FieldMask{Paths: []string{"name"}}})
		}, nil},
		{fc.NodeServiceDeleteNodeProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.DeleteNode(ctx, &farrierv1.DeleteNodeRequest{Node: "web-1"})
		}, nil},
		{fc.NodeServiceSetMaintenanceProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.SetMaintenance(ctx, &farrierv1.SetMaintenanceRequest{Node: "web-1", On: true, Reason: "x"})
		}, nil},
		{fc.NodeServiceWaiveWipeProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.WaiveWipe(ctx, &farrierv1.WaiveWipeRequest{Node: "web-1", Reason: "x"})
		}, nil},
		{fc.NodeServiceSetPowerStateProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.SetPowerState(ctx, &farrierv1.SetPowerStateRequest{Node: "web-1", Target: "power on"})
		}, nil},
		{fc.NodeServiceSetProvisionStateProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.nodes.SetProvisionState(ctx, &farrierv1.SetProvisionStateRequest{Node: "web-1", Verb: "manage"})
		}, nil},
		{fc.PortServiceCreatePortProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.ports.CreatePort(ctx, &farrierv1.CreatePortRequest{Port: &farrierv1.Port{Node: "web-1", Address: "52:54:00:00:aa:01"}})
		}, nil},
		{fc.PortServiceUpdatePortProcedure, func(t *testing.T, w *world.World) {
			w.Apply(t, command.CreatePort{Port: node.Port{ID: id, Node: only(t, w), Address: "52:54:00:00:aa:02"}})
		}, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.ports.UpdatePort(ctx, &farrierv1.UpdatePortRequest{Version: 1, Port: &farrierv1.Port{Id: id, Address: "52:54:00:00:aa:03"}, Mask: &fieldmaskpb.FieldMask{Paths: []string{"address"}}})
		}, nil},
		{fc.PortServiceDeletePortProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.ports.DeletePort(ctx, &farrierv1.DeletePortRequest{Port: "52:54:00:00:00:01"})
		}, deleted},
		{fc.LockServiceAcquireLockProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.locks.AcquireLock(ctx, &farrierv1.AcquireLockRequest{Node: "web-1", Purpose: "x"})
		}, nil},
		{fc.LockServiceReleaseLockProcedure, lockIt, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.locks.ReleaseLock(ctx, &farrierv1.ReleaseLockRequest{Node: "web-1", Token: 1<<48 | 1})
		}, deleted},
		{fc.LockServiceBreakLockProcedure, lockIt, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.locks.BreakLock(ctx, &farrierv1.BreakLockRequest{Node: "web-1", Token: 1<<48 | 1, Reason: "x"})
		}, deleted},
		{fc.RingServiceRebalanceProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.ring.Rebalance(ctx, &farrierv1.RebalanceRequest{})
		}, nil},
		{fc.AgentServiceDrainAgentProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.agents.DrainAgent(ctx, &farrierv1.DrainAgentRequest{Agent: "a1"})
		}, nil},
		{fc.AgentServiceUndrainAgentProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.agents.UndrainAgent(ctx, &farrierv1.UndrainAgentRequest{Agent: "a1"})
		}, nil},
		{fc.AgentServiceRemoveAgentProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.agents.RemoveAgent(ctx, &farrierv1.RemoveAgentRequest{Agent: "a1", Force: true})
		}, nil},
		{fc.ClusterServiceRemoveMemberProcedure, func(t *testing.T, w *world.World) {
			w.Apply(t, command.PutMember{Member: command.Member{ID: "c9", RaftAddress: "h:1", Level: 1}})
		}, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.clusters.RemoveMember(ctx, &farrierv1.RemoveMemberRequest{Id: "c9"})
		}, nil},
		{fc.ClusterServiceCreateJoinTokenProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			res, err := c.clusters.CreateJoinToken(ctx, &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: "a2"})
			return &farrierv1.CreateJoinTokenResponse{Token: res.GetToken()}, err
		}, nil},
		{fc.ClusterServiceUpdateSettingsProcedure, nil, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.clusters.UpdateSettings(ctx, &farrierv1.UpdateSettingsRequest{Settings: &farrierv1.Settings{StepTries: 7}, Mask: &fieldmaskpb.FieldMask{Paths: []string{"step_tries"}}})
		}, nil},
		{fc.CertificateServiceRevokeOperatorProcedure, func(t *testing.T, w *world.World) { w.As(identity.RoleOperator, "bob") }, func(ctx context.Context, c repeats) (proto.Message, error) {
			return c.certificates.RevokeOperator(ctx, &farrierv1.RevokeOperatorRequest{Name: "bob", Reason: "x"})
		}, nil},
	}
	seen := map[string]bool{}
	for _, row := range rows {
		seen[row.procedure] = true
		t.Run(strings.TrimPrefix(row.procedure, "/farrier.v1."), func(t *testing.T) {
			w := world.New(t, []string{"c1"}, "a1")
			world.MustCreate(t, w.Nodes("c1"), world.Web(1))
			if row.before != nil {
				row.before(t, w)
			}
			c := repeatsOf(w, "c1")
			first, err := row.call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if row.after != nil {
				row.after(t, w)
			}
			again, err := row.call(t.Context(), c)
			if err != nil {
				t.Fatalf("the repeat: %v", err)
			}
			if !proto.Equal(first, again) {
				t.Errorf("the repeat answers\n%v, the first\n%v", again, first)
			}
		})
	}
	methods, err := access.Methods()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range methods {
		if _, exempt := unrepeated[name]; !m.ReadOnly && !exempt && !seen[name] && m.Where == access.Leader {
			t.Errorf("%s has no row: is its repeat answered?", name)
		}
	}
}

// only is the world's only node.
func only(t *testing.T, w *world.World) (id node.ID) {
	t.Helper()
	w.Newest().Nodes("", func(n *node.Node) bool { id = n.ID; return true })
	return id
}

// lockIt has an operator hold the lock of the only node, under the cluster's first token.
func lockIt(t *testing.T, w *world.World) {
	w.Apply(t, command.AcquireLock{Node: only(t, w), Session: "s-a1", Holder: "agent a1", Task: "t", Purpose: "x"})
}
