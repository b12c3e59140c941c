package command

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/farrier-project/farrier/api/gen/farrier/raftlog/v1"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// bodyProto is the message of a body; depth is 1 inside a batch.
func bodyProto(b Body, depth int) (*pb.Body, error) {
	switch b := b.(type) {
	case InitCluster:
		return &pb.Body{Body: &pb.Body_InitCluster{InitCluster: &pb.InitCluster{
			ClusterId: b.ClusterID, CaCert: b.CACert, CaKey: sealedProto(b.CAKey), Settings: settingsProto(b.Settings),
			Issued: issuedProto(b.Issued),
		}}}, nil
	case Tick:
		return &pb.Body{Body: &pb.Body_Tick{Tick: &pb.Tick{
			D: int64(b.D), FirstOfTerm: b.FirstOfTerm, Renew: b.Renew, ClientSeen: b.ClientSeen,
		}}}, nil
	case UpdateSettings:
		return &pb.Body{Body: &pb.Body_UpdateSettings{UpdateSettings: &pb.UpdateSettings{
			Settings: settingsProto(b.Settings),
		}}}, nil
	case Batch:
		if depth > 0 {
			return nil, fault.New(fault.Invalid, "", "a batch within a batch")
		}
		m := &pb.Batch{Commands: make([]*pb.Body, len(b.Commands))}
		for i, c := range b.Commands {
			var err error
			if m.Commands[i], err = bodyProto(c, depth+1); err != nil {
				return nil, err
			}
		}
		return &pb.Body{Body: &pb.Body_Batch{Batch: m}}, nil
	case RaiseLevel:
		return &pb.Body{Body: &pb.Body_RaiseLevel{RaiseLevel: &pb.RaiseLevel{Level: b.Level}}}, nil
	case NewGeneration:
		return &pb.Body{Body: &pb.Body_NewGeneration{NewGeneration: &pb.NewGeneration{Reason: b.Reason, Skip: b.Skip}}}, nil
	}
	for _, part := range [...]func(Body) *pb.Body{lockProto, flowBodyProto, nodeBodyProto, agentProto, memberProto} {
		if m := part(b); m != nil {
			return m, nil
		}
	}
	return nil, fault.New(fault.Invalid, "", "no form in the log for a body of type %T", b)
}

func lockProto(b Body) *pb.Body {
	switch b := b.(type) {
	case AcquireLock:
		return &pb.Body{Body: &pb.Body_AcquireLock{AcquireLock: &pb.AcquireLock{
			Node: string(b.Node), Session: b.Session, Holder: b.Holder, Task: b.Task, Purpose: b.Purpose,
		}}}
	case ReleaseLock:
		return &pb.Body{Body: &pb.Body_ReleaseLock{ReleaseLock: &pb.ReleaseLock{
			Node: string(b.Node), Token: uint64(b.Token),
		}}}
	case BreakLock:
		return &pb.Body{Body: &pb.Body_BreakLock{BreakLock: &pb.BreakLock{
			Node: string(b.Node), Token: uint64(b.Token), Reason: b.Reason,
		}}}
	}
	return nil
}

func flowBodyProto(b Body) *pb.Body {
	switch b := b.(type) {
	case Provision:
		m := &pb.Provision{Node: string(b.Node), Verb: b.Verb}
		if b.Instance != nil {
			m.Instance = instanceProto(b.Instance)
		}
		for _, s := range b.CleanSteps {
			m.CleanSteps = append(m.CleanSteps, &pb.CleanStep{Interface: s.Interface, Step: s.Step, Args: s.Args})
		}
		return &pb.Body{Body: &pb.Body_Provision{Provision: m}}
	case SetPower:
		return &pb.Body{Body: &pb.Body_SetPower{SetPower: &pb.SetPower{Node: string(b.Node), Target: b.Target}}}
	case Outcome:
		return &pb.Body{Body: &pb.Body_Outcome{Outcome: &pb.Outcome{
			Node: string(b.Node), Flow: uint64(b.Flow), Step: int64(b.Step), Attempt: b.Attempt,
			Token: uint64(b.Token), Boot: b.Boot, Ok: b.OK, Error: b.Error, ErrorKind: b.ErrorKind,
			Retryable: b.Retryable, Facts: b.Facts, Inventory: b.Inventory, Agent: b.Agent,
		}}}
	case Edge:
		return &pb.Body{Body: &pb.Body_Edge{Edge: &pb.Edge{
			Node: string(b.Node), Flow: uint64(b.Flow), Boot: b.Boot, Kind: b.Kind, KeyHash: b.KeyHash,
			Detail: b.Detail, Agent: b.Agent,
		}}}
	case PowerSeen:
		return &pb.Body{Body: &pb.Body_PowerSeen{PowerSeen: &pb.PowerSeen{
			Node: string(b.Node), Agent: b.Agent, Epoch: b.Epoch, Power: uint32(b.Power), Error: b.Error,
		}}}
	case Timeout:
		return &pb.Body{Body: &pb.Body_Timeout{Timeout: &pb.Timeout{
			Node: string(b.Node), Flow: uint64(b.Flow), Step: int64(b.Step), Attempt: b.Attempt,
			Deadline: int64(b.Deadline),
		}}}
	case Resume:
		return &pb.Body{Body: &pb.Body_Resume{Resume: &pb.Resume{Node: string(b.Node), Flow: uint64(b.Flow)}}}
	}
	return nil
}

func nodeBodyProto(b Body) *pb.Body {
	switch b := b.(type) {
	case CreateNode:
		m := &pb.CreateNode{Packed: &pb.PackedNode{Form: b.Node.Form, Data: []byte(b.Node.Data)}}
		for i := range b.Ports {
			m.Ports = append(m.Ports, portProto(&b.Ports[i]))
		}
		return &pb.Body{Body: &pb.Body_CreateNode{CreateNode: m}}
	case UpdateNode:
		return &pb.Body{Body: &pb.Body_UpdateNode{UpdateNode: &pb.UpdateNode{
			Node: nodeProto(&b.Node), Fields: b.Fields, Version: b.Version,
		}}}
	case DeleteNode:
		return &pb.Body{Body: &pb.Body_DeleteNode{DeleteNode: &pb.DeleteNode{Node: string(b.Node)}}}
	case CreatePort:
		return &pb.Body{Body: &pb.Body_CreatePort{CreatePort: &pb.CreatePort{Port: portProto(&b.Port)}}}
	case UpdatePort:
		return &pb.Body{Body: &pb.Body_UpdatePort{UpdatePort: &pb.UpdatePort{
			Port: portProto(&b.Port), Fields: b.Fields, Version: b.Version,
		}}}
	case DeletePort:
		return &pb.Body{Body: &pb.Body_DeletePort{DeletePort: &pb.DeletePort{Port: b.Port}}}
	case SetMaintenance:
		return &pb.Body{Body: &pb.Body_SetMaintenance{SetMaintenance: &pb.SetMaintenance{
			Node: string(b.Node), On: b.On, Reason: b.Reason, Fault: b.Fault,
		}}}
	case WaiveWipe:
		return &pb.Body{Body: &pb.Body_WaiveWipe{WaiveWipe: &pb.WaiveWipe{Node: string(b.Node), Reason: b.Reason}}}
	}
	return nil
}

func agentProto(b Body) *pb.Body {
	switch b := b.(type) {
	case OpenSession:
		return &pb.Body{Body: &pb.Body_OpenSession{OpenSession: &pb.OpenSession{
			Session: b.Session, Resume: b.Resume, Agent: b.Agent, Group: b.Group, Drivers: b.Drivers,
			Weight: b.Weight, Journal: b.Journal, Incarnation: b.Incarnation, Version: b.Version, Level: b.Level,
			RamdiskUrl: b.RamdiskURL, HttpUrl: b.HTTPURL, RamdiskPin: b.RamdiskPin,
			Key: array32(&b.Key),
		}}}
	case CloseSession:
		return &pb.Body{Body: &pb.Body_CloseSession{CloseSession: &pb.CloseSession{
			Session: b.Session, Reason: b.Reason,
		}}}
	case SetDrain:
		return &pb.Body{Body: &pb.Body_SetDrain{SetDrain: &pb.SetDrain{Agent: b.Agent, On: b.On}}}
	case RemoveAgent:
		return &pb.Body{Body: &pb.Body_RemoveAgent{RemoveAgent: &pb.RemoveAgent{Agent: b.Agent}}}
	case MoveNodes:
		m := &pb.MoveNodes{}
		for _, v := range b.Moves {
			m.Moves = append(m.Moves, &pb.Move{Node: string(v.Node), From: v.From, To: v.To})
		}
		return &pb.Body{Body: &pb.Body_MoveNodes{MoveNodes: m}}
	case HandoverAck:
		return &pb.Body{Body: &pb.Body_HandoverAck{HandoverAck: &pb.HandoverAck{
			Node: string(b.Node), Agent: b.Agent, Epoch: b.Epoch,
		}}}
	case RecordBMCSession:
		return &pb.Body{Body: &pb.Body_RecordBmcSession{RecordBmcSession: &pb.RecordBMCSession{
			Node: string(b.Node), Session: b.Session, Agent: b.Agent, Uri: b.URI, Opened: b.Opened,
		}}}
	}
	return nil
}

func memberProto(b Body) *pb.Body {
	switch b := b.(type) {
	case PutMember:
		return &pb.Body{Body: &pb.Body_PutMember{PutMember: &pb.PutMember{Member: memberRecordProto(b.Member)}}}
	case RemoveMember:
		return &pb.Body{Body: &pb.Body_RemoveMember{RemoveMember: &pb.RemoveMember{Id: b.ID, Rejoins: b.Rejoins}}}
	case CreateJoinToken:
		return &pb.Body{Body: &pb.Body_CreateJoinToken{CreateJoinToken: &pb.CreateJoinToken{
			Id: b.ID, Role: b.Role, Name: b.Name, Group: b.Group, Hash: array32(&b.Hash), Ttl: int64(b.TTL),
		}}}
	case UseJoinToken:
		return &pb.Body{Body: &pb.Body_UseJoinToken{UseJoinToken: &pb.UseJoinToken{
			Id: b.ID, Hash: array32(&b.Hash), Role: b.Role, Key: array32(&b.Key), Ttl: int64(b.TTL),
		}}}
	case RenewCertificate:
		return &pb.Body{Body: &pb.Body_RenewCertificate{RenewCertificate: &pb.RenewCertificate{Key: array32(&b.Key), Ttl: int64(b.TTL)}}}
	case RevokeCertificates:
		return &pb.Body{Body: &pb.Body_RevokeCertificates{RevokeCertificates: &pb.RevokeCertificates{Role: b.Role, Name: b.Name, Reason: b.Reason}}}
	case RecoverRoster:
		return &pb.Body{Body: &pb.Body_RecoverRoster{RecoverRoster: &pb.RecoverRoster{Issued: issuedProto(b.Issued)}}}
	}
	return nil
}

func issuedProto(list []Issued) []*pb.Issued {
	out := makeSlice[*pb.Issued](len(list))
	for i := range list {
		x := &list[i]
		out[i] = &pb.Issued{Key: array32(&x.Key), Role: x.Role, Name: x.Name, Group: x.Group, Ttl: int64(x.TTL)}
	}
	return out
}

func issuedOf(list []*pb.Issued) ([]Issued, error) {
	out := makeSlice[Issued](len(list))
	var err error
	for i, m := range list {
		out[i] = Issued{Role: m.GetRole(), Name: m.GetName(), Group: m.GetGroup(), TTL: dur(m.GetTtl())}
		err = errors.Join(err, put32(&out[i].Key, m.GetKey()))
	}
	return out, err
}

// bodyOf is the body of a message; depth is 1 inside a batch.
func bodyOf(m *pb.Body, depth int) (Body, error) {
	switch t := m.GetBody().(type) {
	case nil:
		if unknown := m.ProtoReflect().GetUnknown(); m != nil && len(unknown) > 0 {
			num, _, _ := protowire.ConsumeTag(unknown)
			return nil, fault.New(fault.Version, "", "unknown command %d", num).
				WithHelp("the log was written by a newer release: start this member again with that release")
		}
		return nil, fault.New(fault.Corrupt, "", "a command without a body")
	case *pb.Body_Batch:
		if depth > 0 {
			return nil, fault.New(fault.Corrupt, "", "a batch within a batch")
		}
		b := Batch{Commands: makeSlice[Body](len(t.Batch.GetCommands()))}
		for i, c := range t.Batch.GetCommands() {
			var err error
			if b.Commands[i], err = bodyOf(c, depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case *pb.Body_CreateJoinToken:
		m := t.CreateJoinToken
		b := CreateJoinToken{ID: m.GetId(), Role: m.GetRole(), Name: m.GetName(), Group: m.GetGroup(), TTL: dur(m.GetTtl())}
		err := put32(&b.Hash, m.GetHash())
		return b, err
	case *pb.Body_UseJoinToken:
		m := t.UseJoinToken
		b := UseJoinToken{ID: m.GetId(), Role: m.GetRole(), TTL: dur(m.GetTtl())}
		err := errors.Join(put32(&b.Hash, m.GetHash()), put32(&b.Key, m.GetKey()))
		return b, err
	case *pb.Body_InitCluster:
		m := t.InitCluster
		issued, err := issuedOf(m.GetIssued())
		return InitCluster{ClusterID: m.GetClusterId(), CACert: m.GetCaCert(), CAKey: sealedOf(m.GetCaKey()), Settings: settingsOf(m.GetSettings()), Issued: issued}, err
	case *pb.Body_RecoverRoster:
		issued, err := issuedOf(t.RecoverRoster.GetIssued())
		return RecoverRoster{Issued: issued}, err
	case *pb.Body_RenewCertificate:
		b := RenewCertificate{TTL: dur(t.RenewCertificate.GetTtl())}
		err := put32(&b.Key, t.RenewCertificate.GetKey())
		return b, err
	case *pb.Body_OpenSession:
		return openSessionOf(t.OpenSession)
	case *pb.Body_CreateNode:
		return createNodeOf(t.CreateNode)
	case *pb.Body_UpdateNode:
		n, err := nodeOf(t.UpdateNode.GetNode())
		return UpdateNode{Node: n, Fields: t.UpdateNode.GetFields(), Version: t.UpdateNode.GetVersion()}, err
	default:
		return plainBodyOf(t), nil
	}
}

func createNodeOf(m *pb.CreateNode) (Body, error) {
	b := CreateNode{Node: node.Packed{Form: m.GetPacked().GetForm(), Data: string(m.GetPacked().GetData())}, Ports: makeSlice[node.Port](len(m.GetPorts()))}
	for i, p := range m.GetPorts() {
		b.Ports[i] = portOf(p)
	}
	if b.Node.Form > node.PackForm {
		return nil, fault.New(fault.Version, "", "a node in form %d, this member reads %d", b.Node.Form, node.PackForm).
			WithHelp("the log was written by a newer release: start this member again with that release")
	}
	if m.GetNode() != nil { // as it was written before there was a packed one
		n, err := nodeOf(m.GetNode())
		if err != nil {
			return nil, err
		}
		b.Node = node.Pack(&n)
	}
	return b, nil
}

func openSessionOf(m *pb.OpenSession) (Body, error) {
	b := OpenSession{
		Session: m.GetSession(), Resume: m.GetResume(), Agent: m.GetAgent(), Group: m.GetGroup(),
		Drivers: m.GetDrivers(), Weight: m.GetWeight(), Journal: m.GetJournal(), Incarnation: m.GetIncarnation(),
		Version: m.GetVersion(), Level: m.GetLevel(), RamdiskURL: m.GetRamdiskUrl(), HTTPURL: m.GetHttpUrl(),
		RamdiskPin: m.GetRamdiskPin(),
	}
	err := put32(&b.Key, m.GetKey())
	return b, err
}

func makeSlice[T any](n int) []T {
	if n == 0 {
		return nil
	}
	return make([]T, n)
}
