package command

import (
	"fmt"
	"time"

	pb "github.com/farrier-project/farrier/api/gen/farrier/raftlog/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
)

func dur(ns int64) time.Duration { return time.Duration(ns) }

// plainBodyOf reads the bodies whose messages cannot be wrong. m is one of the generated wrappers of Body.body.
func plainBodyOf(m any) Body {
	switch t := m.(type) {
	case *pb.Body_Tick:
		m := t.Tick
		return Tick{D: dur(m.GetD()), FirstOfTerm: m.GetFirstOfTerm(), Renew: m.GetRenew(), ClientSeen: m.GetClientSeen()}
	case *pb.Body_UpdateSettings:
		return UpdateSettings{Settings: settingsOf(t.UpdateSettings.GetSettings())}
	case *pb.Body_AcquireLock:
		m := t.AcquireLock
		return AcquireLock{Node: node.ID(m.GetNode()), Session: m.GetSession(), Holder: m.GetHolder(), Task: m.GetTask(), Purpose: m.GetPurpose()}
	case *pb.Body_ReleaseLock:
		return ReleaseLock{Node: node.ID(t.ReleaseLock.GetNode()), Token: lock.Token(t.ReleaseLock.GetToken())}
	case *pb.Body_BreakLock:
		m := t.BreakLock
		return BreakLock{Node: node.ID(m.GetNode()), Token: lock.Token(m.GetToken()), Reason: m.GetReason()}
	case *pb.Body_RaiseLevel:
		return RaiseLevel{Level: t.RaiseLevel.GetLevel()}
	case *pb.Body_NewGeneration:
		return NewGeneration{Reason: t.NewGeneration.GetReason(), Skip: t.NewGeneration.GetSkip()}
	case *pb.Body_PutMember:
		return PutMember{Member: memberOf(t.PutMember.GetMember())}
	case *pb.Body_RemoveMember:
		return RemoveMember{ID: t.RemoveMember.GetId(), Rejoins: t.RemoveMember.GetRejoins()}
	case *pb.Body_RevokeCertificates:
		m := t.RevokeCertificates
		return RevokeCertificates{Role: m.GetRole(), Name: m.GetName(), Reason: m.GetReason()}
	}
	for _, part := range [...]func(any) Body{flowBodyOf, nodeBodyOf, agentBodyOf} {
		if b := part(m); b != nil {
			return b
		}
	}
	panic(fmt.Sprintf("command: generated code has a command %T that the codec lacks", m)) // a test covers every arm
}

func flowBodyOf(m any) Body {
	switch t := m.(type) {
	case *pb.Body_Provision:
		m := t.Provision
		b := Provision{Node: node.ID(m.GetNode()), Verb: m.GetVerb(), CleanSteps: makeSlice[CleanStep](len(m.GetCleanSteps()))}
		if m.GetInstance() != nil {
			in := instanceOf(m.GetInstance())
			b.Instance = &in
		}
		for i, s := range m.GetCleanSteps() {
			b.CleanSteps[i] = CleanStep{Interface: s.GetInterface(), Step: s.GetStep(), Args: s.GetArgs()}
		}
		return b
	case *pb.Body_SetPower:
		return SetPower{Node: node.ID(t.SetPower.GetNode()), Target: t.SetPower.GetTarget()}
	case *pb.Body_Outcome:
		m := t.Outcome
		return Outcome{
			Node: node.ID(m.GetNode()), Flow: flow.ID(m.GetFlow()), Step: int(m.GetStep()), Attempt: m.GetAttempt(),
			Token: lock.Token(m.GetToken()), Boot: m.GetBoot(), OK: m.GetOk(), Error: m.GetError(),
			ErrorKind: m.GetErrorKind(), Retryable: m.GetRetryable(), Facts: m.GetFacts(),
			Inventory: m.GetInventory(), Agent: m.GetAgent(),
		}
	case *pb.Body_Edge:
		m := t.Edge
		return Edge{
			Node: node.ID(m.GetNode()), Flow: flow.ID(m.GetFlow()), Boot: m.GetBoot(), Kind: m.GetKind(),
			KeyHash: m.GetKeyHash(), Detail: m.GetDetail(), Agent: m.GetAgent(),
		}
	case *pb.Body_PowerSeen:
		m := t.PowerSeen
		return PowerSeen{
			Node: node.ID(m.GetNode()), Agent: m.GetAgent(), Epoch: m.GetEpoch(), Power: node.Power(m.GetPower()), Error: m.GetError(),
		}
	case *pb.Body_Timeout:
		m := t.Timeout
		return Timeout{
			Node: node.ID(m.GetNode()), Flow: flow.ID(m.GetFlow()), Step: int(m.GetStep()), Attempt: m.GetAttempt(),
			Deadline: dur(m.GetDeadline()),
		}
	case *pb.Body_Resume:
		return Resume{Node: node.ID(t.Resume.GetNode()), Flow: flow.ID(t.Resume.GetFlow())}
	}
	return nil
}

func nodeBodyOf(m any) Body {
	switch t := m.(type) {
	case *pb.Body_DeleteNode:
		return DeleteNode{Node: node.ID(t.DeleteNode.GetNode())}
	case *pb.Body_CreatePort:
		return CreatePort{Port: portOf(t.CreatePort.GetPort())}
	case *pb.Body_UpdatePort:
		m := t.UpdatePort
		return UpdatePort{Port: portOf(m.GetPort()), Fields: m.GetFields(), Version: m.GetVersion()}
	case *pb.Body_DeletePort:
		return DeletePort{Port: t.DeletePort.GetPort()}
	case *pb.Body_SetMaintenance:
		m := t.SetMaintenance
		return SetMaintenance{Node: node.ID(m.GetNode()), On: m.GetOn(), Reason: m.GetReason(), Fault: m.GetFault()}
	case *pb.Body_WaiveWipe:
		return WaiveWipe{Node: node.ID(t.WaiveWipe.GetNode()), Reason: t.WaiveWipe.GetReason()}
	}
	return nil
}

func agentBodyOf(m any) Body {
	switch t := m.(type) {
	case *pb.Body_CloseSession:
		return CloseSession{Session: t.CloseSession.GetSession(), Reason: t.CloseSession.GetReason()}
	case *pb.Body_SetDrain:
		return SetDrain{Agent: t.SetDrain.GetAgent(), On: t.SetDrain.GetOn()}
	case *pb.Body_RemoveAgent:
		return RemoveAgent{Agent: t.RemoveAgent.GetAgent()}
	case *pb.Body_MoveNodes:
		b := MoveNodes{Moves: makeSlice[Move](len(t.MoveNodes.GetMoves()))}
		for i, v := range t.MoveNodes.GetMoves() {
			b.Moves[i] = Move{Node: node.ID(v.GetNode()), From: v.GetFrom(), To: v.GetTo()}
		}
		return b
	case *pb.Body_HandoverAck:
		m := t.HandoverAck
		return HandoverAck{Node: node.ID(m.GetNode()), Agent: m.GetAgent(), Epoch: m.GetEpoch()}
	case *pb.Body_RecordBmcSession:
		m := t.RecordBmcSession
		return RecordBMCSession{Node: node.ID(m.GetNode()), Session: m.GetSession(), Agent: m.GetAgent(), URI: m.GetUri(), Opened: m.GetOpened()}
	}
	return nil
}
