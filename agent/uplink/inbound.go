package uplink

import (
	"sync/atomic"
	"time"

	"github.com/farrier-project/farrier/agent/task"
	"github.com/farrier-project/farrier/agent/work"
	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// inbound takes a stream's messages in. take is called from one goroutine at a time.
type inbound struct {
	u          *Uplink
	m          *task.Manager
	welcomed   bool
	leader     string
	renewEvery time.Duration
	acked      atomic.Int64 // boottime of the last acknowledged renewal
	events     []work.Event // collected, not yet handled
}

// take handles a batch in order. An error ends the stream.
func (in *inbound) take(res *farrierv1.ConnectResponse) error {
	for _, m := range res.GetMessages() {
		if err := in.one(m); err != nil {
			in.flush()
			return err
		}
	}
	in.flush()
	return nil
}

func (in *inbound) flush() {
	if len(in.events) > 0 {
		in.m.Handle(in.events...)
		in.events = in.events[:0]
	}
}

func (in *inbound) add(ev work.Event) { in.events = append(in.events, ev) }

func (in *inbound) one(m *farrierv1.CoordinatorMessage) error {
	switch b := m.GetBody().(type) {
	case *farrierv1.CoordinatorMessage_Redirect:
		in.leader = b.Redirect.GetLeaderAddress()
		return errRedirected
	case *farrierv1.CoordinatorMessage_Welcome:
		in.welcome(b.Welcome)
	case *farrierv1.CoordinatorMessage_Renewed:
		in.acked.Store(int64(in.u.cfg.Clock.Boottime()))
		in.add(work.Renewed{Seq: b.Renewed.GetSeq()})
	case *farrierv1.CoordinatorMessage_Assign:
		in.flush()
		n := FromAssign(b.Assign, in.u.cfg.Clock.Boottime())
		boot := ""
		if n.Boot != nil {
			boot = n.Boot.ID
		}
		in.u.out.settle(n.ID, boot)
		in.m.Assign(n)
	case *farrierv1.CoordinatorMessage_Unassign:
		in.add(work.Unassigned{Node: b.Unassign.GetNode(), Epoch: b.Unassign.GetEpoch()})
	case *farrierv1.CoordinatorMessage_Order:
		o, err := fromOrder(b.Order)
		if err != nil {
			in.u.cfg.Log.Warn("order not understood", "node", o.Node, "step", o.Full(), "err", err)
			in.u.Report(work.Failed(o, err))
			return nil
		}
		in.add(work.Ordered{Order: o})
	case *farrierv1.CoordinatorMessage_Cancel:
		in.add(work.Cancelled{Ref: FromRef(b.Cancel.GetRef()), Reason: b.Cancel.GetReason()})
	case *farrierv1.CoordinatorMessage_Confirmed:
		ref := FromRef(b.Confirmed.GetRef())
		in.add(work.Confirmed{Ref: ref})
		if f := in.u.cfg.Confirmed; f != nil {
			f(ref)
		}
	case *farrierv1.CoordinatorMessage_LockReply:
		in.u.calls.answer(b.LockReply)
	case *farrierv1.CoordinatorMessage_BmcSessionReply:
		in.u.calls.answer(&farrierv1.LockReply{Call: b.BmcSessionReply.GetCall(), Error: b.BmcSessionReply.GetError()})
	case *farrierv1.CoordinatorMessage_GroupInfo:
		in.group(b.GroupInfo)
	case *farrierv1.CoordinatorMessage_Synced:
		in.add(work.Synced{})
		in.flush()
		in.u.out.repeatEdges()
		in.u.calls.repeat()
		if f := in.u.cfg.Synced; f != nil {
			f()
		}
	case *farrierv1.CoordinatorMessage_SessionEnded:
		in.add(work.Ended{Reason: b.SessionEnded.GetReason()})
		in.u.calls.failAll("the session is over: " + b.SessionEnded.GetReason())
		return fault.New(fault.Expired, "hold session", "ended: %s", b.SessionEnded.GetReason())
	}
	return nil
}

func (in *inbound) welcome(w *farrierv1.Welcome) {
	in.welcomed = true
	in.renewEvery = DefaultRenew
	if d := w.GetRenewEvery().AsDuration(); d > 0 {
		in.renewEvery = d
	}
	if !w.GetResumed() && in.m.Holding().Session != "" {
		in.u.calls.failAll("another session was opened")
	}
	in.add(work.Welcomed{Session: w.GetSession(), TTL: w.GetTtl().AsDuration(), Resumed: w.GetResumed()})
	in.flush()
	in.u.cfg.Log.Info("session", "session", w.GetSession(), "resumed", w.GetResumed(), "leader", w.GetLeader())
	if f := in.u.cfg.Welcomed; f != nil {
		f(w.GetRamdiskHeartbeat().AsDuration(), w.GetRamdiskSilence().AsDuration())
	}
}

func (in *inbound) group(g *farrierv1.GroupInfo) {
	if f := in.u.cfg.Revoked; f != nil && len(g.GetRevokedCoordinators()) > 0 {
		var keys [][32]byte
		for _, k := range g.GetRevokedCoordinators() {
			if len(k) == 32 {
				keys = append(keys, [32]byte(k))
			}
		}
		f(keys)
	}
	if in.u.cfg.GroupChanged == nil {
		return
	}
	agents := make([]GroupAgent, 0, len(g.GetAgents()))
	for _, a := range g.GetAgents() {
		agents = append(agents, GroupAgent{a.GetName(), a.GetRamdiskUrl(), a.GetHttpUrl(), a.GetRamdiskPin()})
	}
	in.u.cfg.GroupChanged(agents)
}
