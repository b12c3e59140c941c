package command

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/farrier-project/farrier/api/gen/farrier/raftlog/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
)

// AppendSnapshotRecord appends one record of a snapshot: *Root, *node.Node, *node.Packed, *node.Port, *flow.Flow, *Session,
// *Agent, *Ring, *JoinToken, *Client, *Answer, *Alarm, *Inventory, *BMCSessions, *Certificate, *Event, *Member or *SnapshotEnd. Equal records
// have equal bytes. It panics on any other type.
func AppendSnapshotRecord(b []byte, rec any) []byte {
	m := &pb.SnapshotRecord{}
	switch r := rec.(type) {
	case *node.Packed:
		return appendPackedNode(b, r)
	case *Root:
		m.Record = &pb.SnapshotRecord_Root{Root: rootProto(r)}
	case *node.Node:
		m.Record = &pb.SnapshotRecord_Node{Node: nodeProto(r)}
	case *node.Port:
		m.Record = &pb.SnapshotRecord_Port{Port: portProto(r)}
	case *flow.Flow:
		m.Record = &pb.SnapshotRecord_Flow{Flow: flowProto(r)}
	case *Member:
		m.Record = &pb.SnapshotRecord_Member{Member: memberRecordProto(*r)}
	case *SnapshotEnd:
		m.Record = &pb.SnapshotRecord_End{End: &pb.SnapshotEnd{Records: r.Records, Hash: r.Hash[:]}}
	default:
		m = membershipProto(rec)
	}
	return appendRecord(b, m)
}

// The fields of a packed node on the wire.
const (
	fieldPackedNode = 17 // of SnapshotRecord
	fieldForm       = 1  // of PackedNode
	fieldData       = 2
)

// appendPackedNode writes a packed node without a message in between, which would copy the data.
func appendPackedNode(b []byte, p *node.Packed) []byte {
	size := protowire.SizeTag(fieldForm) + protowire.SizeVarint(uint64(p.Form)) + protowire.SizeTag(fieldData) + protowire.SizeBytes(len(p.Data))
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldPackedNode, protowire.BytesType), uint64(size))
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldForm, protowire.VarintType), uint64(p.Form))
	return protowire.AppendString(protowire.AppendTag(b, fieldData, protowire.BytesType), p.Data)
}

// packedNodeOf reads what appendPackedNode wrote, and copies the data once; ok is false for every other record.
func packedNodeOf(b []byte) (p *node.Packed, ok bool) {
	b, ok = consumeField(b, fieldPackedNode)
	if !ok {
		return nil, false
	}
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num != fieldForm || typ != protowire.VarintType {
		return nil, false
	}
	form, m := protowire.ConsumeVarint(b[n:])
	if m < 0 || form>>32 != 0 {
		return nil, false
	}
	data, ok := consumeField(b[n+m:], fieldData)
	if !ok {
		return nil, false
	}
	return &node.Packed{Form: uint32(form), Data: string(data)}, true
}

// consumeField is the content of b if b is one field of bytes with that number and nothing else.
func consumeField(b []byte, want protowire.Number) (content []byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num != want || typ != protowire.BytesType {
		return nil, false
	}
	content, m := protowire.ConsumeBytes(b[n:])
	return content, m >= 0 && n+m == len(b)
}

// membershipProto encodes the records of agents, clients and what happened.
func membershipProto(rec any) *pb.SnapshotRecord {
	switch r := rec.(type) {
	case *Session:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Session{Session: &pb.Session{
			Id: r.ID, Agent: r.Agent, Journal: r.Journal, Incarnation: r.Incarnation, Deadline: int64(r.Deadline), Ttl: int64(r.TTL),
		}}}
	case *Agent:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Agent{Agent: &pb.Agent{
			Name: r.Name, Group: r.Group, Drivers: r.Drivers, Weight: r.Weight, Session: r.Session, Journal: r.Journal,
			Incarnation: r.Incarnation, Draining: r.Draining, Version: r.Version, Level: r.Level,
			RamdiskUrl: r.RamdiskURL, HttpUrl: r.HTTPURL, RamdiskPin: r.RamdiskPin,
			RegisteredAt: unixNano(r.RegisteredAt), EndedAt: int64(r.EndedAt), Alarm: r.Alarm, Removed: r.Removed,
		}}}
	case *Ring:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Ring{Ring: &pb.Ring{Group: r.Group, Driver: r.Driver, Epoch: r.Epoch}}}
	case *JoinToken:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_JoinToken{JoinToken: &pb.JoinTokenRecord{
			Id: r.ID, Role: r.Role, Name: r.Name, Group: r.Group, Hash: r.Hash[:], Expires: int64(r.Expires), UsedBy: array32(&r.UsedBy), By: r.By,
		}}}
	case *Certificate:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Certificate{Certificate: &pb.Certificate{
			Key: r.Key[:], Role: r.Role, Name: r.Name, Group: r.Group, InvitedBy: r.InvitedBy, JoinedAt: unixNano(r.JoinedAt),
			RenewedAt: unixNano(r.RenewedAt), Ends: int64(r.Ends), RevokedBy: r.RevokedBy, RevokedAt: unixNano(r.RevokedAt), Reason: r.Reason,
		}}}
	case *Client:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Client{Client: &pb.Client{
			Id: r.ID, Actor: r.Actor, Floor: r.Floor, High: r.High, Count: r.Count, UsedAt: int64(r.UsedAt), Ended: r.Ended,
		}}}
	case *Answer:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Answer{Answer: &pb.Answer{
			Client: r.Client, Seq: r.Seq, Digest: r.Digest[:], Gone: r.Gone, Result: resultProto(&r.Result),
		}}}
	case *Alarm:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Alarm{Alarm: &pb.Alarm{
			Id: r.ID, Index: r.Index, At: unixNano(r.At), Text: r.Text,
		}}}
	case *Inventory:
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Inventory{Inventory: &pb.Inventory{
			Node: string(r.Node), At: unixNano(r.At), Data: r.Data,
		}}}
	case *BMCSessions:
		m := &pb.BMCSessions{Node: string(r.Node)}
		for _, s := range r.Sessions {
			m.Sessions = append(m.Sessions, &pb.BMCSession{Uri: s.URI, Agent: s.Agent, Session: s.Session})
		}
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_BmcSessions{BmcSessions: m}}
	case *Event:
		m := &pb.Event{
			Index: r.Index, Ordinal: r.Ordinal, Type: r.Type, Node: string(r.Node), NodeName: r.NodeName, At: unixNano(r.At), Actor: r.Actor,
		}
		for _, f := range r.Fields {
			m.Fields = append(m.Fields, f.Key, f.Value)
		}
		return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Event{Event: m}}
	default:
		panic("command: a snapshot has no such record")
	}
}

// DecodeSnapshotRecord reads what AppendSnapshotRecord wrote. Errors are fault.Corrupt.
func DecodeSnapshotRecord(data []byte) (any, error) {
	if p, ok := packedNodeOf(data); ok {
		return p, nil
	}
	var m pb.SnapshotRecord
	if err := readRecord("snapshot record", data, &m); err != nil {
		return nil, err
	}
	switch r := m.GetRecord().(type) {
	case *pb.SnapshotRecord_Root:
		return rootOf(r.Root)
	case *pb.SnapshotRecord_PackedNode:
		return &node.Packed{Form: r.PackedNode.GetForm(), Data: string(r.PackedNode.GetData())}, nil
	case *pb.SnapshotRecord_Node:
		n, err := nodeOf(r.Node)
		return &n, err
	case *pb.SnapshotRecord_Port:
		p := portOf(r.Port)
		return &p, nil
	case *pb.SnapshotRecord_Flow:
		return flowOf(r.Flow), nil
	case *pb.SnapshotRecord_Member:
		member := memberOf(r.Member)
		return &member, nil
	case *pb.SnapshotRecord_End:
		end := &SnapshotEnd{Records: r.End.GetRecords()}
		return end, put16(&end.Hash, r.End.GetHash())
	default:
		return membershipOf(&m)
	}
}

func membershipOf(m *pb.SnapshotRecord) (any, error) {
	switch r := m.GetRecord().(type) {
	case *pb.SnapshotRecord_Session:
		s := r.Session
		return &Session{ID: s.GetId(), Agent: s.GetAgent(), Journal: s.GetJournal(), Incarnation: s.GetIncarnation(), Deadline: dur(s.GetDeadline()), TTL: dur(s.GetTtl())}, nil
	case *pb.SnapshotRecord_Agent:
		a := r.Agent
		return &Agent{
			Name: a.GetName(), Group: a.GetGroup(), Drivers: a.GetDrivers(), Weight: a.GetWeight(), Session: a.GetSession(),
			Journal: a.GetJournal(), Incarnation: a.GetIncarnation(), Draining: a.GetDraining(), Version: a.GetVersion(),
			Level: a.GetLevel(), RamdiskURL: a.GetRamdiskUrl(), HTTPURL: a.GetHttpUrl(), RamdiskPin: a.GetRamdiskPin(),
			RegisteredAt: timeOf(a.GetRegisteredAt()), EndedAt: dur(a.GetEndedAt()), Alarm: a.GetAlarm(), Removed: a.GetRemoved(),
		}, nil
	case *pb.SnapshotRecord_Ring:
		return &Ring{Group: r.Ring.GetGroup(), Driver: r.Ring.GetDriver(), Epoch: r.Ring.GetEpoch()}, nil
	case *pb.SnapshotRecord_JoinToken:
		t := r.JoinToken
		out := &JoinToken{ID: t.GetId(), Role: t.GetRole(), Name: t.GetName(), Group: t.GetGroup(), Expires: dur(t.GetExpires()), By: t.GetBy()}
		return out, errors.Join(put32(&out.Hash, t.GetHash()), put32(&out.UsedBy, t.GetUsedBy()))
	case *pb.SnapshotRecord_Certificate:
		c := r.Certificate
		out := &Certificate{
			Role: c.GetRole(), Name: c.GetName(), Group: c.GetGroup(), InvitedBy: c.GetInvitedBy(), JoinedAt: timeOf(c.GetJoinedAt()),
			RenewedAt: timeOf(c.GetRenewedAt()), Ends: dur(c.GetEnds()), RevokedBy: c.GetRevokedBy(), RevokedAt: timeOf(c.GetRevokedAt()), Reason: c.GetReason(),
		}
		return out, put32(&out.Key, c.GetKey())
	case *pb.SnapshotRecord_Client:
		c := r.Client
		return &Client{
			ID: c.GetId(), Actor: c.GetActor(), Floor: c.GetFloor(), High: c.GetHigh(), Count: c.GetCount(),
			UsedAt: dur(c.GetUsedAt()), Ended: c.GetEnded(),
		}, nil
	case *pb.SnapshotRecord_Answer:
		a := r.Answer
		out := &Answer{Client: a.GetClient(), Seq: a.GetSeq(), Gone: a.GetGone(), Result: resultOf(a.GetResult())}
		return out, put16(&out.Digest, a.GetDigest())
	case *pb.SnapshotRecord_Alarm:
		a := r.Alarm
		return &Alarm{ID: a.GetId(), Index: a.GetIndex(), At: timeOf(a.GetAt()), Text: a.GetText()}, nil
	case *pb.SnapshotRecord_Inventory:
		i := r.Inventory
		return &Inventory{Node: node.ID(i.GetNode()), At: timeOf(i.GetAt()), Data: i.GetData()}, nil
	case *pb.SnapshotRecord_BmcSessions:
		b := &BMCSessions{Node: node.ID(r.BmcSessions.GetNode())}
		for _, s := range r.BmcSessions.GetSessions() {
			b.Sessions = append(b.Sessions, BMCSession{URI: s.GetUri(), Agent: s.GetAgent(), Session: s.GetSession()})
		}
		return b, nil
	case *pb.SnapshotRecord_Event:
		return eventOf(r.Event)
	default:
		return nil, fault.New(fault.Corrupt, "decode snapshot record", "the record is of a kind that this release does not know").
			WithHelp("the snapshot was written by a newer release: start this member again with that release")
	}
}

func eventOf(e *pb.Event) (*Event, error) {
	out := &Event{
		Index: e.GetIndex(), Ordinal: e.GetOrdinal(), Type: e.GetType(), Node: node.ID(e.GetNode()),
		NodeName: e.GetNodeName(), At: timeOf(e.GetAt()), Actor: e.GetActor(),
	}
	pairs := e.GetFields()
	if len(pairs)%2 != 0 {
		return nil, fault.New(fault.Corrupt, "decode event", "a field of event %d.%d has no value", out.Index, out.Ordinal)
	}
	out.Fields = make([]Field, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		out.Fields = append(out.Fields, Field{Key: pairs[i], Value: pairs[i+1]})
	}
	return out, nil
}

func rootProto(r *Root) *pb.Root {
	return &pb.Root{
		Index: r.Index, Ordinal: r.Ordinal, Elapsed: int64(r.Elapsed), ClusterId: r.ClusterID,
		Generation: uint32(r.Generation), Level: r.Level, CaCert: r.CACert, CaKey: sealedProto(r.CAKey),
		Tokens: r.Tokens, Flows: r.Flows, Alarms: r.Alarms, Settings: settingsProto(r.Settings),
		FloorIndex: r.FloorIndex, FloorOrdinal: r.FloorOrdinal,
	}
}

func rootOf(m *pb.Root) (*Root, error) {
	r := &Root{
		Index: m.GetIndex(), Ordinal: m.GetOrdinal(), Elapsed: dur(m.GetElapsed()), ClusterID: m.GetClusterId(),
		Generation: uint16(m.GetGeneration()), Level: m.GetLevel(), CACert: m.GetCaCert(), CAKey: sealedOf(m.GetCaKey()),
		Tokens: m.GetTokens(), Flows: m.GetFlows(), Alarms: m.GetAlarms(), Settings: settingsOf(m.GetSettings()),
		FloorIndex: m.GetFloorIndex(), FloorOrdinal: m.GetFloorOrdinal(),
	}
	if m.GetGeneration()>>16 != 0 {
		return nil, fault.New(fault.Corrupt, "decode root", "generation %d does not fit", m.GetGeneration())
	}
	return r, nil
}

func resultProto(r *Result) *pb.Result {
	m := &pb.Result{
		Index: r.Index, Node: string(r.Node), Flow: uint64(r.Flow), Token: uint64(r.Token), Session: r.Session,
		Version: r.Version, Count: r.Count, Flags: r.Flags,
	}
	for i := range r.Results {
		m.Results = append(m.Results, resultProto(&r.Results[i]))
	}
	if r.Err != nil {
		m.ErrorKind, m.Error = fault.KindOf(r.Err).String(), r.Err.Error()
		var e *fault.Error
		if errors.As(r.Err, &e) {
			m.Help = e.Help
		}
	}
	return m
}

func resultOf(m *pb.Result) Result {
	r := Result{
		Index: m.GetIndex(), Node: node.ID(m.GetNode()), Flow: flow.ID(m.GetFlow()), Token: lock.Token(m.GetToken()),
		Session: m.GetSession(), Version: m.GetVersion(), Count: m.GetCount(), Flags: m.GetFlags(),
	}
	for _, x := range m.GetResults() {
		r.Results = append(r.Results, resultOf(x))
	}
	if m.GetErrorKind() != "" {
		r.Err = &fault.Error{Kind: fault.ParseKind(m.GetErrorKind()), Err: errors.New(m.GetError()), Help: m.GetHelp()}
	}
	return r
}

// MaxSnapshotRecord bounds one encoded record of a snapshot, in bytes.
const MaxSnapshotRecord = 4 << 20
