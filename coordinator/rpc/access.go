package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// where says which member serves a method.
type where uint8

const (
	_      where = iota
	anyone       // any member, from its own state, linearizable by an index that the leader gives
	leader       // the leader; others send the request on
	itself       // the member that was asked, never sent on
)

// access is one row of the table: who may call, and who serves.
type access struct {
	roles []identity.Role // nil: open to callers without a certificate
	where where
	max   int64 // bytes of the request's body; 0: maxBody
}

// Bounds of bodies, in bytes.
const (
	maxBody      = 1 << 20  // of one unary request
	maxBulkBody  = 16 << 20 // of CreateNodes
	maxChunkBody = 2 << 20  // of one message of a stream
	maxJoinBody  = 32 << 10 // of Join, which is read before anything is proved
)

var (
	operators    = []identity.Role{identity.RoleOperator}
	people       = []identity.Role{identity.RoleOperator, identity.RoleCoordinator}
	coordinators = []identity.Role{identity.RoleCoordinator}
	members      = []identity.Role{identity.RoleOperator, identity.RoleAgent, identity.RoleCoordinator}
)

// table is every method of the public services. A method without a row stops the coordinator at start.
var table = map[string]access{ // read-only
	fc.NodeServiceCreateNodeProcedure:        {operators, leader, 0},
	fc.NodeServiceCreateNodesProcedure:       {operators, leader, maxBulkBody},
	fc.NodeServiceGetNodeProcedure:           {people, anyone, 0},
	fc.NodeServiceListNodesProcedure:         {people, anyone, 0},
	fc.NodeServiceUpdateNodeProcedure:        {operators, leader, 0},
	fc.NodeServiceDeleteNodeProcedure:        {operators, leader, 0},
	fc.NodeServiceSetProvisionStateProcedure: {operators, leader, 0},
	fc.NodeServiceSetPowerStateProcedure:     {operators, leader, 0},
	fc.NodeServiceSetMaintenanceProcedure:    {operators, leader, 0},
	fc.NodeServiceGetInventoryProcedure:      {people, anyone, 0},
	fc.NodeServiceValidateNodeProcedure:      {people, anyone, 0},
	fc.NodeServiceWaiveWipeProcedure:         {operators, leader, 0},

	fc.PortServiceCreatePortProcedure: {operators, leader, 0},
	fc.PortServiceGetPortProcedure:    {people, anyone, 0},
	fc.PortServiceListPortsProcedure:  {people, anyone, 0},
	fc.PortServiceUpdatePortProcedure: {operators, leader, 0},
	fc.PortServiceDeletePortProcedure: {operators, leader, 0},

	fc.LockServiceListLocksProcedure:   {people, leader, 0}, // the queue is the leader's memory
	fc.LockServiceBreakLockProcedure:   {operators, leader, 0},
	fc.LockServiceAcquireLockProcedure: {operators, leader, 0},
	fc.LockServiceReleaseLockProcedure: {operators, leader, 0},

	fc.RingServiceShowRingProcedure:    {people, anyone, 0},
	fc.RingServiceExplainNodeProcedure: {people, anyone, 0},
	fc.RingServiceRebalanceProcedure:   {operators, leader, 0},

	fc.AgentServiceListAgentsProcedure:   {people, leader, 0}, // free workers are the leader's memory
	fc.AgentServiceDrainAgentProcedure:   {operators, leader, 0},
	fc.AgentServiceUndrainAgentProcedure: {operators, leader, 0},
	fc.AgentServiceRemoveAgentProcedure:  {operators, leader, 0},

	fc.WatchServiceWatchProcedure: {people, itself, 0},

	fc.ClusterServiceGetClusterProcedure:      {people, itself, 0}, // to see who is missing when nobody leads
	fc.ClusterServiceRemoveMemberProcedure:    {people, leader, 0}, // a coordinator: itself only
	fc.ClusterServicePutMemberProcedure:       {coordinators, leader, 0},
	fc.ClusterServiceSaveSnapshotProcedure:    {operators, leader, 0},
	fc.ClusterServiceRestoreSnapshotProcedure: {operators, leader, maxChunkBody},
	fc.ClusterServiceCreateJoinTokenProcedure: {people, leader, 0}, // a coordinator: an operator's only
	fc.ClusterServiceGetSettingsProcedure:     {people, anyone, 0},
	fc.ClusterServiceUpdateSettingsProcedure:  {operators, leader, 0},
	fc.ClusterServiceReadIndexProcedure:       {coordinators, itself, 0},

	fc.CertificateServiceListCertificatesProcedure: {people, anyone, 0},
	fc.CertificateServiceRevokeOperatorProcedure:   {operators, leader, 0},

	fc.JoinServiceJoinProcedure:  {nil, leader, maxJoinBody},
	fc.JoinServiceRenewProcedure: {members, leader, 0},
}

// services are what this room serves.
func services() []protoreflect.ServiceDescriptor {
	var out []protoreflect.ServiceDescriptor
	for _, f := range []protoreflect.FileDescriptor{farrierv1.File_farrier_v1_node_proto,
		farrierv1.File_farrier_v1_lock_proto, farrierv1.File_farrier_v1_ring_proto} {
		for i := range f.Services().Len() {
			out = append(out, f.Services().Get(i))
		}
	}
	return out
}

// checkTable compares the table with the definitions: one row for each method, one method for each row.
func checkTable(rows map[string]access) error {
	left := maps.Clone(rows)
	for _, s := range services() {
		for i := range s.Methods().Len() {
			name := fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(i).Name())
			row, ok := left[name]
			if !ok || row.where == 0 {
				return fault.New(fault.Internal, "check access table", "%s has no row: nobody would know who may call it", name)
			}
			delete(left, name)
		}
	}
	if len(left) > 0 {
		return fault.New(fault.Internal, "check access table", "rows without a method: %v", slices.Sorted(maps.Keys(left)))
	}
	return nil
}

// Caller is who a request comes from.
type Caller struct {
	identity.Peer
	Anonymous bool          // no certificate: Join only
	Via       string        // the coordinator that sent the request on
	via       identity.Peer // the same; zero: nobody did
}

type callerKey struct{}

func withCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf is the caller that the HTTP layer put in the context; without one the caller is anonymous.
func callerOf(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c
	}
	return Caller{Anonymous: true}
}

// authorise checks the caller against a method's row.
func authorise(procedure string, row access, c Caller) error {
	if row.roles == nil {
		return nil
	}
	if c.Anonymous {
		return fault.New(fault.Unauthenticated, procedure, "it needs a certificate, and the caller sent none").
			WithHelp("join the cluster first, or give the directory of a certificate that it issued")
	}
	if !slices.Contains(row.roles, c.Role) {
		return fault.New(fault.Denied, procedure, "role %q may not call it", c.Role).
			WithHelp("it needs one of the roles %v", row.roles)
	}
	return nil
}
