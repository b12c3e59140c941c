package command

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/farrier-project/farrier/api/gen/farrier/raftlog/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// AppendNode appends the record as it lies in a snapshot: the same bytes for equal records.
func AppendNode(b []byte, n *node.Node) []byte { return appendRecord(b, nodeProto(n)) }

// DecodeNode reads what AppendNode wrote. Errors are fault.Corrupt.
func DecodeNode(data []byte) (*node.Node, error) {
	var m pb.Node
	if err := readRecord("node", data, &m); err != nil {
		return nil, err
	}
	n, err := nodeOf(&m)
	if err != nil {
		return nil, err
	}
	return &n, nil
}

// AppendPort appends the record as it lies in a snapshot: the same bytes for equal records.
func AppendPort(b []byte, p *node.Port) []byte { return appendRecord(b, portProto(p)) }

// DecodePort reads what AppendPort wrote. Errors are fault.Corrupt.
func DecodePort(data []byte) (*node.Port, error) {
	var m pb.Port
	if err := readRecord("port", data, &m); err != nil {
		return nil, err
	}
	p := portOf(&m)
	return &p, nil
}

// AppendFlow appends the record as it lies in a snapshot: the same bytes for equal records.
func AppendFlow(b []byte, f *flow.Flow) []byte { return appendRecord(b, flowProto(f)) }

// DecodeFlow reads what AppendFlow wrote. Errors are fault.Corrupt.
func DecodeFlow(data []byte) (*flow.Flow, error) {
	var m pb.Flow
	if err := readRecord("flow", data, &m); err != nil {
		return nil, err
	}
	return flowOf(&m), nil
}

// AppendSettings appends the record as it lies in a snapshot.
func AppendSettings(b []byte, s Settings) []byte { return appendRecord(b, settingsProto(s)) }

// DecodeSettings reads what AppendSettings wrote. Errors are fault.Corrupt.
func DecodeSettings(data []byte) (Settings, error) {
	var m pb.Settings
	if err := readRecord("settings", data, &m); err != nil {
		return Settings{}, err
	}
	return settingsOf(&m), nil
}

func appendRecord(b []byte, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m)
	if err != nil {
		panic("command: a record that came through Decode cannot fail to encode: " + err.Error()) // strings were valid UTF-8
	}
	return b
}

func readRecord(what string, data []byte, m proto.Message) error {
	if err := proto.Unmarshal(data, m); err != nil {
		return fault.New(fault.Corrupt, "decode "+what, "%w", err)
	}
	return nil
}

func sealedProto(s node.Sealed) *pb.Sealed {
	if s.KeyID == 0 && len(s.Box) == 0 {
		return nil
	}
	return &pb.Sealed{KeyId: s.KeyID, Box: s.Box}
}

func sealedOf(m *pb.Sealed) node.Sealed { return node.Sealed{KeyID: m.GetKeyId(), Box: m.GetBox()} }

func nodeProto(n *node.Node) *pb.Node {
	m := &pb.Node{
		Id: string(n.ID), Name: n.Name, Driver: n.Driver, Group: n.Group,
		Provision: n.Provision.String(), TargetProvision: n.TargetProvision.String(),
		Power: uint32(n.Power), TargetPower: n.TargetPower,
		Maintenance: n.Maintenance, MaintenanceReason: n.MaintenanceReason, Fault: n.Fault, LastError: n.LastError,
		Owner: n.Owner, PrevOwner: n.PrevOwner, Epoch: n.Epoch,
		Lock: lockRecordProto(n.Lock), Token: uint64(n.Token), Flow: uint64(n.Flow), FlowOpen: n.FlowOpen,
		Description: n.Description, ResourceClass: n.ResourceClass, LesseeId: n.LesseeID, OwnerId: n.OwnerID,
		Traits: n.Traits, Properties: n.Properties, Extra: n.Extra, DriverInfo: n.DriverInfo,
		AutomatedClean: n.AutomatedClean, Protected: n.Protected, Retired: n.Retired,
		ProtectedReason: n.ProtectedReason, BootMode: n.BootMode, WeakBoot: n.WeakBoot,
		Instance: instanceProto(&n.Instance), Tenanted: n.Tenanted, Wipe: wipeProto(n.Wipe), Written: n.Written, Version: n.Version,
		CreatedAt: unixNano(n.CreatedAt), UpdatedAt: unixNano(n.UpdatedAt),
		ProvisionUpdatedAt: unixNano(n.ProvisionUpdatedAt),
	}
	if len(n.Secrets) > 0 {
		m.Secrets = make(map[string]*pb.Sealed, len(n.Secrets))
		for k, v := range n.Secrets {
			m.Secrets[k] = &pb.Sealed{KeyId: v.KeyID, Box: v.Box}
		}
	}
	return m
}

func nodeOf(m *pb.Node) (node.Node, error) {
	provision, ok := lifecycle.ParseState(m.GetProvision())
	target, ok2 := lifecycle.ParseState(m.GetTargetProvision())
	if !ok || !ok2 {
		return node.Node{}, fault.New(fault.Version, "decode node", "%s has unknown provision state %q or target %q",
			m.GetId(), m.GetProvision(), m.GetTargetProvision())
	}
	n := node.Node{
		ID: node.ID(m.GetId()), Name: m.GetName(), Driver: m.GetDriver(), Group: m.GetGroup(),
		Provision: provision, TargetProvision: target, Power: node.Power(m.GetPower()), TargetPower: m.GetTargetPower(),
		Maintenance: m.GetMaintenance(), MaintenanceReason: m.GetMaintenanceReason(), Fault: m.GetFault(),
		LastError: m.GetLastError(), Owner: m.GetOwner(), PrevOwner: m.GetPrevOwner(), Epoch: m.GetEpoch(),
		Lock: lockOf(m.GetLock()), Token: lock.Token(m.GetToken()), Flow: flow.ID(m.GetFlow()), FlowOpen: m.GetFlowOpen(),
		Description: m.GetDescription(), ResourceClass: m.GetResourceClass(), LesseeID: m.GetLesseeId(),
		OwnerID: m.GetOwnerId(), Traits: m.GetTraits(), Properties: m.GetProperties(), Extra: m.GetExtra(),
		DriverInfo: m.GetDriverInfo(), AutomatedClean: m.AutomatedClean, Protected: m.GetProtected(),
		Retired: m.GetRetired(), ProtectedReason: m.GetProtectedReason(), BootMode: m.GetBootMode(),
		WeakBoot: m.GetWeakBoot(), Instance: instanceOf(m.GetInstance()), Tenanted: m.GetTenanted(),
		Wipe: wipeOf(m.GetWipe()), Written: m.GetWritten(), Version: m.GetVersion(), CreatedAt: timeOf(m.GetCreatedAt()),
		UpdatedAt: timeOf(m.GetUpdatedAt()), ProvisionUpdatedAt: timeOf(m.GetProvisionUpdatedAt()),
	}
	if len(m.GetSecrets()) > 0 {
		n.Secrets = make(map[string]node.Sealed, len(m.GetSecrets()))
		for k, v := range m.GetSecrets() {
			n.Secrets[k] = sealedOf(v)
		}
	}
	return n, nil
}

func lockRecordProto(l node.Lock) *pb.Lock {
	if l == (node.Lock{}) {
		return nil
	}
	return &pb.Lock{
		Token: uint64(l.Token), Session: l.Session, Holder: l.Holder, Task: l.Task, Purpose: l.Purpose,
		Since: unixNano(l.Since), Flow: uint64(l.Flow),
	}
}

func lockOf(m *pb.Lock) node.Lock {
	return node.Lock{
		Token: lock.Token(m.GetToken()), Session: m.GetSession(), Holder: m.GetHolder(), Task: m.GetTask(),
		Purpose: m.GetPurpose(), Since: timeOf(m.GetSince()), Flow: flow.ID(m.GetFlow()),
	}
}

func instanceProto(i *node.Instance) *pb.Instance {
	m := &pb.Instance{
		Uuid: i.UUID, Hostname: i.Hostname, ImageUrl: i.ImageURL, ImageSha256: i.ImageSHA, ImageFormat: i.ImageFmt,
		RootDeviceHints: i.RootDeviceHints, MetaData: i.MetaData, UserData: sealedProto(i.UserData),
		NetworkData: sealedProto(i.NetworkData), ImageDigest: i.ImageDigest, DiskId: i.DiskID,
	}
	return m
}

func instanceOf(m *pb.Instance) node.Instance {
	return node.Instance{
		UUID: m.GetUuid(), Hostname: m.GetHostname(), ImageURL: m.GetImageUrl(), ImageSHA: m.GetImageSha256(),
		ImageFmt: m.GetImageFormat(), RootDeviceHints: m.GetRootDeviceHints(), MetaData: m.GetMetaData(),
		UserData: sealedOf(m.GetUserData()), NetworkData: sealedOf(m.GetNetworkData()),
		ImageDigest: m.GetImageDigest(), DiskID: m.GetDiskId(),
	}
}

func wipeProto(w *node.Wipe) *pb.Wipe {
	if w == nil {
		return nil
	}
	return &pb.Wipe{Method: w.Method, Disks: w.Disks, Sampled: w.Sampled, Who: w.Who, Reason: w.Reason, At: unixNano(w.At)}
}

func wipeOf(m *pb.Wipe) *node.Wipe {
	if m == nil {
		return nil
	}
	return &node.Wipe{
		Method: m.GetMethod(), Disks: m.GetDisks(), Sampled: m.GetSampled(), Who: m.GetWho(), Reason: m.GetReason(),
		At: timeOf(m.GetAt()),
	}
}

func portProto(p *node.Port) *pb.Port {
	return &pb.Port{
		Id: p.ID, Node: string(p.Node), Address: p.Address, Name: p.Name, PxeEnabled: p.PXEEnabled, Ip: p.IP,
		Version: p.Version,
	}
}

func portOf(m *pb.Port) node.Port {
	return node.Port{
		ID: m.GetId(), Node: node.ID(m.GetNode()), Address: m.GetAddress(), Name: m.GetName(),
		PXEEnabled: m.GetPxeEnabled(), IP: m.GetIp(), Version: m.GetVersion(),
	}
}

func flowProto(f *flow.Flow) *pb.Flow {
	m := &pb.Flow{
		Id: uint64(f.ID), Node: f.Node, Kind: uint32(f.Kind), Verb: f.Verb, Status: uint32(f.Status),
		Cur: int64(f.Cur), Phase: uint32(f.Phase), Manual: f.Manual, Boots: f.Boots,
		AbortRequested: f.AbortRequested, AbortBy: f.AbortBy, DeleteAfter: f.DeleteAfter, Error: f.Error,
		Facts: f.Facts, Actor: f.Actor, StartedAt: unixNano(f.StartedAt), EndedAt: unixNano(f.EndedAt),
	}
	if f.Boot != (flow.Boot{}) {
		m.Boot = &pb.Boot{
			Id: f.Boot.ID, Expires: int64(f.Boot.Expires), KeyHash: f.Boot.KeyHash, Contact: f.Boot.Contact,
			SilentAt: int64(f.Boot.SilentAt),
		}
	}
	for i := range f.Steps {
		m.Steps = append(m.Steps, stepProto(&f.Steps[i]))
	}
	return m
}

func flowOf(m *pb.Flow) *flow.Flow {
	f := &flow.Flow{
		ID: flow.ID(m.GetId()), Node: m.GetNode(), Kind: flow.Kind(m.GetKind()), Verb: m.GetVerb(),
		Status: flow.Status(m.GetStatus()), Steps: makeSlice[flow.Step](len(m.GetSteps())), Cur: int(m.GetCur()),
		Phase: uint8(m.GetPhase()), Manual: m.GetManual(), Boots: m.GetBoots(),
		Boot: flow.Boot{
			ID: m.GetBoot().GetId(), Expires: dur(m.GetBoot().GetExpires()), KeyHash: m.GetBoot().GetKeyHash(),
			Contact: m.GetBoot().GetContact(), SilentAt: dur(m.GetBoot().GetSilentAt()),
		},
		AbortRequested: m.GetAbortRequested(), AbortBy: m.GetAbortBy(), DeleteAfter: m.GetDeleteAfter(),
		Error: m.GetError(), Facts: m.GetFacts(), Actor: m.GetActor(), StartedAt: timeOf(m.GetStartedAt()),
		EndedAt: timeOf(m.GetEndedAt()),
	}
	for i, s := range m.GetSteps() {
		f.Steps[i] = stepOf(s)
	}
	return f
}

func stepProto(s *flow.Step) *pb.FlowStep {
	m := &pb.FlowStep{
		Interface: s.Interface, Name: s.Name, Class: uint32(s.Class), Executor: uint32(s.Executor),
		Abortable: s.Abortable, Args: s.Args, SecretArgs: s.SecretArgs, Status: uint32(s.Status), Error: s.Error,
		Facts: s.Facts, StartedAt: unixNano(s.StartedAt), EndedAt: unixNano(s.EndedAt),
		Cleanup: s.Cleanup, Tries: s.Tries,
	}
	if a := s.Attempt; a != (flow.Attempt{}) {
		m.Attempt = &pb.Attempt{
			N: a.N, Open: a.Open, Token: uint64(a.Token), Deadline: int64(a.Deadline), NotBefore: int64(a.NotBefore),
			Resumed: a.Resumed, Boot: a.Boot, CallDeadline: int64(a.CallDeadline),
		}
	}
	return m
}

func stepOf(m *pb.FlowStep) flow.Step {
	a := m.GetAttempt()
	return flow.Step{
		Interface: m.GetInterface(), Name: m.GetName(), Class: step.Class(m.GetClass()),
		Executor: step.Executor(m.GetExecutor()), Abortable: m.GetAbortable(), Args: m.GetArgs(),
		SecretArgs: m.GetSecretArgs(), Status: flow.Status(m.GetStatus()), Error: m.GetError(), Facts: m.GetFacts(),
		StartedAt: timeOf(m.GetStartedAt()), EndedAt: timeOf(m.GetEndedAt()),
		Cleanup: m.GetCleanup(), Tries: m.GetTries(),
		Attempt: flow.Attempt{
			N: a.GetN(), Open: a.GetOpen(), Token: lock.Token(a.GetToken()), Deadline: dur(a.GetDeadline()),
			NotBefore: dur(a.GetNotBefore()), Resumed: a.GetResumed(), Boot: a.GetBoot(), CallDeadline: dur(a.GetCallDeadline()),
		},
	}
}

func settingsProto(s Settings) *pb.Settings {
	return &pb.Settings{
		SessionTtl: int64(s.SessionTTL), DeployTimeout: int64(s.DeployTimeout), CleanTimeout: int64(s.CleanTimeout),
		InspectTimeout: int64(s.InspectTimeout), BootTtl: int64(s.BootTTL), RamdiskSilence: int64(s.RamdiskSilence),
		RamdiskHeartbeat: int64(s.RamdiskHeartbeat), BmcChangeDeadline: int64(s.BMCChangeDeadline),
		StepDeadline: int64(s.StepDeadline), StepTries: s.StepTries, BootTries: s.BootTries,
		AutomatedClean: s.AutomatedClean, MaxDeploy: s.MaxDeploy, MaxClean: s.MaxClean, Erase: s.Erase,
	}
}

func settingsOf(m *pb.Settings) Settings {
	return Settings{
		SessionTTL: dur(m.GetSessionTtl()), DeployTimeout: dur(m.GetDeployTimeout()), CleanTimeout: dur(m.GetCleanTimeout()),
		InspectTimeout: dur(m.GetInspectTimeout()), BootTTL: dur(m.GetBootTtl()), RamdiskSilence: dur(m.GetRamdiskSilence()),
		RamdiskHeartbeat: dur(m.GetRamdiskHeartbeat()), BMCChangeDeadline: dur(m.GetBmcChangeDeadline()),
		StepDeadline: dur(m.GetStepDeadline()), StepTries: m.GetStepTries(), BootTries: m.GetBootTries(),
		AutomatedClean: m.GetAutomatedClean(), MaxDeploy: m.GetMaxDeploy(), MaxClean: m.GetMaxClean(), Erase: m.GetErase(),
	}
}

func memberRecordProto(r Member) *pb.Member {
	return &pb.Member{
		Id: r.ID, RaftAddress: r.RaftAddress, ApiAddress: r.APIAddress, RackAddress: r.RackAddress,
		Version: r.Version, Level: r.Level,
	}
}

func memberOf(m *pb.Member) Member {
	return Member{
		ID: m.GetId(), RaftAddress: m.GetRaftAddress(), APIAddress: m.GetApiAddress(),
		RackAddress: m.GetRackAddress(), Version: m.GetVersion(), Level: m.GetLevel(),
	}
}
