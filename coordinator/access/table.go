package access

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Where says which member serves a method.
type Where uint8

// The members that may serve.
const (
	_      Where = iota
	Anyone       // any member, from its own state, linearizable by an index that the leader gives
	Leader       // the leader; others send the request on
	Itself       // the member that was asked, never sent on
)

// Method is what holds for one method of the public services.
type Method struct {
	Roles    []identity.Role // who may call; nil: also callers without a certificate
	Where    Where
	MaxBody  int64 // bytes of a unary request's body
	Streams  bool  // in either direction
	ReadOnly bool  // it changes nothing
}

// row is a method's row of the table.
type row struct {
	roles []identity.Role
	where Where
	max   int64 // bytes of the request's body; 0: usualBody
}

// MaxBody is the largest message that any method takes, in bytes.
const MaxBody = 16 << 20

// Bounds of bodies, in bytes.
const (
	usualBody = 1 << 20
	chunkBody = 2 << 20  // of one message of a stream
	joinBody  = 32 << 10 // of Join, which is read before anything is proved
)

var (
	operators    = []identity.Role{identity.RoleOperator}
	people       = []identity.Role{identity.RoleOperator, identity.RoleCoordinator}
	coordinators = []identity.Role{identity.RoleCoordinator}
	members      = []identity.Role{identity.RoleOperator, identity.RoleAgent, identity.RoleCoordinator}
)

// table is every method of the public services. A method without a row stops the coordinator at start.
var table = map[string]row{ // read-only
	fc.NodeServiceCreateNodeProcedure:        {operators, Leader, 0},
	fc.NodeServiceCreateNodesProcedure:       {operators, Leader, MaxBody},
	fc.NodeServiceGetNodeProcedure:           {people, Anyone, 0},
	fc.NodeServiceListNodesProcedure:         {people, Anyone, 0},
	fc.NodeServiceUpdateNodeProcedure:        {operators, Leader, 0},
	fc.NodeServiceDeleteNodeProcedure:        {operators, Leader, 0},
	fc.NodeServiceSetProvisionStateProcedure: {operators, Leader, 0},
	fc.NodeServiceSetPowerStateProcedure:     {operators, Leader, 0},
	fc.NodeServiceSetMaintenanceProcedure:    {operators, Leader, 0},
	fc.NodeServiceGetInventoryProcedure:      {people, Anyone, 0},
	fc.NodeServiceValidateNodeProcedure:      {people, Anyone, 0},
	fc.NodeServiceWaiveWipeProcedure:         {operators, Leader, 0},

	fc.PortServiceCreatePortProcedure: {operators, Leader, 0},
	fc.PortServiceGetPortProcedure:    {people, Anyone, 0},
	fc.PortServiceListPortsProcedure:  {people, Anyone, 0},
	fc.PortServiceUpdatePortProcedure: {operators, Leader, 0},
	fc.PortServiceDeletePortProcedure: {operators, Leader, 0},

	fc.LockServiceListLocksProcedure:   {people, Leader, 0}, // the queue is the leader's memory
	fc.LockServiceBreakLockProcedure:   {operators, Leader, 0},
	fc.LockServiceAcquireLockProcedure: {operators, Leader, 0},
	fc.LockServiceReleaseLockProcedure: {operators, Leader, 0},

	fc.RingServiceShowRingProcedure:    {people, Anyone, 0},
	fc.RingServiceExplainNodeProcedure: {people, Anyone, 0},
	fc.RingServiceRebalanceProcedure:   {operators, Leader, 0},

	fc.AgentServiceListAgentsProcedure:   {people, Leader, 0}, // free workers are the leader's memory
	fc.AgentServiceDrainAgentProcedure:   {operators, Leader, 0},
	fc.AgentServiceUndrainAgentProcedure: {operators, Leader, 0},
	fc.AgentServiceRemoveAgentProcedure:  {operators, Leader, 0},

	fc.WatchServiceWatchProcedure: {people, Itself, 0},

	fc.ClusterServiceGetClusterProcedure:      {people, Itself, 0}, // to see who is missing when nobody leads
	fc.ClusterServiceRemoveMemberProcedure:    {people, Leader, 0}, // a coordinator: itself only
	fc.ClusterServicePutMemberProcedure:       {coordinators, Leader, 0},
	fc.ClusterServiceSaveSnapshotProcedure:    {operators, Leader, 0},
	fc.ClusterServiceRestoreSnapshotProcedure: {operators, Leader, chunkBody},
	fc.ClusterServiceCreateJoinTokenProcedure: {people, Leader, 0}, // a coordinator: an operator's only
	fc.ClusterServiceGetSettingsProcedure:     {people, Anyone, 0},
	fc.ClusterServiceUpdateSettingsProcedure:  {operators, Leader, 0},
	fc.ClusterServiceReadIndexProcedure:       {coordinators, Itself, 0},

	fc.CertificateServiceListCertificatesProcedure: {people, Anyone, 0},
	fc.CertificateServiceRevokeOperatorProcedure:   {operators, Leader, 0},

	fc.JoinServiceJoinProcedure:  {nil, Leader, joinBody},
	fc.JoinServiceRenewProcedure: {members, Leader, 0},
}

// services are the public ones.
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

// Methods are all of them, by the path of their requests. It is an error if the table and the definitions differ: then nobody
// would know who may call.
func Methods() (map[string]Method, error) { return methods(table) }

func methods(rows map[string]row) (map[string]Method, error) {
	const op = "check access table"
	left, out := maps.Clone(rows), map[string]Method{}
	for _, s := range services() {
		for i := range s.Methods().Len() {
			d := s.Methods().Get(i)
			name := fmt.Sprintf("/%s/%s", s.FullName(), d.Name())
			r, ok := left[name]
			if !ok || r.where == 0 {
				return nil, fault.New(fault.Internal, op, "%s has no row: nobody would know who may call it", name)
			}
			delete(left, name)
			m := Method{Roles: r.roles, Where: r.where, MaxBody: r.max, Streams: d.IsStreamingClient() || d.IsStreamingServer(), ReadOnly: reads(d)}
			if m.MaxBody == 0 {
				m.MaxBody = usualBody
			}
			out[name] = m
		}
	}
	if len(left) > 0 {
		return nil, fault.New(fault.Internal, op, "rows without a method: %v", slices.Sorted(maps.Keys(left)))
	}
	return out, nil
}

func reads(m protoreflect.MethodDescriptor) bool {
	o, ok := m.Options().(*descriptorpb.MethodOptions)
	return ok && o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// Open tells whether callers without a certificate may call.
func (m Method) Open() bool { return m.Roles == nil }

// Authorise is nil if the caller's role may call the method of that path.
func (m Method) Authorise(path string, c Caller) error {
	if m.Open() {
		return nil
	}
	if c.Anonymous {
		return fault.New(fault.Unauthenticated, path, "it needs a certificate, and the caller sent none").
			WithHelp("join the cluster first, or give the directory of a certificate that it issued")
	}
	if !slices.Contains(m.Roles, c.Role) {
		return fault.New(fault.Denied, path, "role %q may not call it", c.Role).
			WithHelp("it needs one of the roles %v", m.Roles)
	}
	return nil
}
