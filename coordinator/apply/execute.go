package apply

import (
	"fmt"

	"github.com/farrier-project/farrier/coordinator/command"
)

// unknownCommand is what execute panics with, and what guarded lets through: the member must stop.
type unknownCommand string

// execute does a command. Those about a node's work are the jobs'; each case here lives in the file of its table.
func (s *Applier) execute(body command.Body) command.Result {
	if res, done := s.jobs.Do(body); done {
		return res
	}
	switch c := body.(type) {
	case command.InitCluster:
		return s.initCluster(c)
	case command.Tick:
		return s.tick(c)
	case command.UpdateSettings:
		return s.updateSettings(c)
	case command.OpenSession:
		return s.openSession(c)
	case command.CloseSession:
		return s.closeSession(c)
	case command.SetDrain:
		return s.setDrain(c)
	case command.RemoveAgent:
		return s.removeAgent(c)
	case command.MoveNodes:
		return s.moveNodes(c)
	case command.HandoverAck:
		return s.handoverAck(c)
	case command.CreateNode:
		return s.createNode(c)
	case command.UpdateNode:
		return s.updateNode(c)
	case command.DeleteNode:
		return s.deleteNode(c)
	case command.CreatePort:
		return s.createPort(c)
	case command.UpdatePort:
		return s.updatePort(c)
	case command.DeletePort:
		return s.deletePort(c)
	case command.PutMember:
		return s.putMember(c)
	case command.RemoveMember:
		return s.removeMember(c)
	case command.CreateJoinToken:
		return s.createJoinToken(c)
	case command.UseJoinToken:
		return s.useJoinToken(c)
	case command.RaiseLevel:
		return s.raiseLevel(c)
	case command.NewGeneration:
		return s.newGeneration(c)
	case command.RecordBMCSession:
		return s.recordBMCSession(c)
	case command.RenewCertificate:
		return s.renewCertificate(c)
	case command.RevokeCertificates:
		return s.revokeCertificates(c)
	case command.RecoverRoster:
		return s.recoverRoster(c)
	case command.Batch:
		return s.batch(c)
	default:
		panic(unknownCommand(fmt.Sprintf("apply: unknown command %T at index %d: this member is too old; install the version that the others run", c, s.Index())))
	}
}
