package dispatch

import (
	"context"
	"maps"
	"strconv"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/dispatch/progress"
	"github.com/farrier-project/farrier/coordinator/dispatch/waitlist"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// item is one message on its way into the log.
type item struct {
	body    command.Body // nil: refused already, with err
	err     error
	size    int // bytes, about
	request *farrierv1.LockRequest
	release *farrierv1.LockRelease
	ref     *farrierv1.OrderRef // of an outcome
	bmc     *farrierv1.BMCSession
}

// submit proposes a batch as one and answers each of its messages, in order. An error means that nothing of the batch is
// known to be committed: nothing is answered, the stream ends, and the agent says it all again on the next one.
func (l *link) submit(ctx context.Context, batch []item) error {
	bodies, sent := make([]command.Body, 0, len(batch)), make([]*item, 0, len(batch))
	for i := range batch {
		it := &batch[i]
		switch {
		case it.err != nil:
			sent = append(sent, it) // answered in its turn
		case it.request != nil && l.d.waiters.Len(node.ID(it.request.Node)) > 0:
			l.queue(it, nil) // others came first
		default:
			bodies, sent = append(bodies, it.body), append(sent, it)
		}
	}
	var results []command.Result
	if len(bodies) > 0 {
		packed := packLocks(bodies)
		packedResults, err := l.d.proposer.All(ctx, l.d.proposer.Stamp(l.actor, packed...))
		if err != nil {
			return err // what was released all the same is found by the waitlist's own rounds
		}
		results = unpackResults(packed, packedResults)
	}
	for _, it := range sent {
		if it.err != nil {
			l.answer(it, command.Result{}, it.err)
			continue
		}
		l.answer(it, results[0], results[0].Err)
		results = results[1:]
	}
	return nil
}

// maxPacked is how many lock commands share one header: few enough that a command's bound is never met.
const maxPacked = 256

// packLocks puts neighbours that take and release locks into batches. They come by the thousand, and alone their headers
// would be half of the log.
func packLocks(bodies []command.Body) []command.Body {
	packed := make([]command.Body, 0, len(bodies))
	for i := 0; i < len(bodies); {
		n := i
		for n < len(bodies) && n-i < maxPacked && isLock(bodies[n]) {
			n++
		}
		if n-i < 2 {
			packed = append(packed, bodies[i])
			i++
			continue
		}
		packed = append(packed, command.Batch{Commands: bodies[i:n:n]})
		i = n
	}
	return packed
}

func isLock(b command.Body) bool {
	switch b.(type) {
	case command.AcquireLock, command.ReleaseLock:
		return true
	}
	return false
}

// unpackResults gives each body that was packed its result.
func unpackResults(packed []command.Body, results []command.Result) []command.Result {
	out := make([]command.Result, 0, len(results))
	for i, b := range packed {
		batch, ok := b.(command.Batch)
		switch {
		case !ok:
			out = append(out, results[i])
		case results[i].Err != nil:
			for range batch.Commands {
				out = append(out, results[i])
			}
		default:
			out = append(out, results[i].Results...)
		}
	}
	return out
}

// answer tells the agent what became of one message.
func (l *link) answer(it *item, res command.Result, err error) {
	switch {
	case it.request != nil:
		if fault.Is(err, fault.Locked) {
			l.queue(it, err)
			return
		}
		l.lockReply(it.request.Call, res, err)
	case it.release != nil:
		l.lockReply(it.release.Call, command.Result{}, err)
		l.d.waiters.Look(node.ID(it.release.Node)) // no event tells of it
	case it.bmc.GetCall() != 0:
		reply := &farrierv1.BMCSessionReply{Call: it.bmc.Call}
		if err != nil {
			reply.Error = refusal.Detail(err)
		}
		l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_BmcSessionReply{BmcSessionReply: reply}})
	case it.ref != nil:
		if err != nil {
			l.d.cfg.Log.Warn("an outcome was refused", "agent", l.agent, "node", it.ref.Node, "flow", it.ref.Flow, "err", err)
		}
		late := err != nil || res.Flags&command.FlagLate != 0
		l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_Confirmed{
			Confirmed: &farrierv1.OutcomeConfirmed{Ref: it.ref, Late: late}}})
	case err != nil:
		l.d.cfg.Log.Debug("a report changed nothing", "agent", l.agent, "command", it.body, "err", err)
	}
}

func (l *link) lockReply(call uint64, res command.Result, err error) {
	reply := &farrierv1.LockReply{Call: call, Token: uint64(res.Token)}
	if err != nil {
		reply.Token, reply.Error = 0, refusal.Detail(err)
	}
	l.out.Put(&farrierv1.CoordinatorMessage{Body: &farrierv1.CoordinatorMessage_LockReply{LockReply: reply}})
}

// queue lets a lock request wait for its turn. held is the refusal it met, nil when it has not been tried.
func (l *link) queue(it *item, held error) {
	r := it.request
	l.d.waiters.Ask(waitlist.Waiter{
		Node: node.ID(r.Node), Actor: l.actor, Body: it.body, Held: held, From: l,
		Reply: func(res command.Result, err error) { l.lockReply(r.Call, res, err) },
	}, waitOf(r.Wait))
}

// waitOf reads a wait: absent is 3 s, patient is negative, without end.
func waitOf(w *farrierv1.LockWait) time.Duration {
	switch {
	case w.GetPatient():
		return -1
	case w.GetWait() == nil:
		return waitlist.DefaultWait
	default:
		return max(w.GetWait().AsDuration(), 0)
	}
}

// ours refuses a message about a node of another group: an agent speaks for its own.
func (l *link) ours(id string) error {
	n, ok := l.d.cfg.Replica.View().Node(node.ID(id))
	switch {
	case !ok:
		return fault.New(fault.NotFound, "read an agent's request", "node %s does not exist", id)
	case n.Group != l.group:
		return fault.New(fault.Denied, "read an agent's request", "node %s is of group %q, the agent of %q", id, n.Group, l.group)
	}
	return nil
}

// lockRequest names the task by the call too, which is unique in a session: a repeated call is the same request,
// two tasks of one name are not.
func (l *link) lockRequest(r *farrierv1.LockRequest) item {
	task := clip(r.GetTask(), 128) + "#" + strconv.FormatUint(r.GetCall(), 10)
	return item{request: r, err: l.ours(r.GetNode()), size: 512, body: command.AcquireLock{
		Node: node.ID(r.GetNode()), Session: l.session, Holder: l.actor, Task: task, Purpose: clip(r.GetPurpose(), 256)}}
}

func (l *link) lockRelease(r *farrierv1.LockRelease) item {
	return item{release: r, err: l.ours(r.GetNode()), size: 192, body: command.ReleaseLock{
		Node: node.ID(r.GetNode()), Token: lock.Token(r.GetToken())}}
}

func (l *link) outcome(o *farrierv1.StepOutcome) item {
	ref := o.GetRef()
	if ref == nil {
		ref = &farrierv1.OrderRef{}
	}
	l.d.planner.note(note{kind: noteEnded, link: l, ref: keyOf(ref), node: node.ID(ref.Node)})
	body := command.Outcome{
		Node: node.ID(ref.Node), Flow: flow.ID(ref.Flow), Step: int(ref.Step), Attempt: ref.Attempt,
		Token: lock.Token(ref.Token), Boot: o.GetBootId(), OK: o.GetOk(), Error: clip(o.GetError(), maxErrorText),
		ErrorKind: clip(o.GetErrorKind(), 64), Retryable: o.GetRetryable(), Facts: o.GetFacts(), Inventory: o.GetInventory(),
		Agent: l.agent,
	}
	size := 512 + len(body.Error) + len(body.Inventory)
	for k, v := range body.Facts {
		size += len(k) + len(v) + 8
	}
	if why := tooLarge(body); why != "" { // the step ends, with a cause that people can read
		body.OK, body.Retryable, body.Facts, body.Inventory = false, false, nil, nil
		body.Error, body.ErrorKind = why, fault.TooLarge.String()
	}
	return item{ref: ref, err: l.ours(ref.Node), size: size, body: body}
}

// maxErrorText bounds the error of one outcome, in bytes.
const maxErrorText = 4 << 10

func tooLarge(o command.Outcome) string {
	size := 0
	for k, v := range maps.All(o.Facts) {
		size += len(k) + len(v)
	}
	switch {
	case len(o.Inventory) > state.MaxInventory:
		return "the inventory is larger than the coordinator takes"
	case len(o.Facts) > state.MaxFacts || size > state.MaxFactBytes:
		return "the step reported more facts than the coordinator takes"
	}
	return ""
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

func (l *link) edge(e *farrierv1.Edge) item {
	return item{err: l.ours(e.GetNode()), size: 512 + len(e.GetDetail()), body: command.Edge{
		Node: node.ID(e.GetNode()), Flow: flow.ID(e.GetFlow()), Boot: e.GetBootId(), Kind: e.GetKind(),
		KeyHash: e.GetKeyHash(), Detail: clip(e.GetDetail(), maxErrorText), Agent: l.agent}}
}

// powerSeen is a reading that changes something, as far as the view knows: no other is worth a log entry. What was news all the
// same is said again at the agent's next reading.
func (l *link) powerSeen(p *farrierv1.PowerSeen) (it item, news bool) {
	body := command.PowerSeen{
		Node: node.ID(p.GetNode()), Agent: l.agent, Epoch: p.GetEpoch(), Power: node.ParsePower(p.GetPowerState()), Error: clip(p.GetError(), maxErrorText),
	}
	n, ok := l.d.cfg.Replica.View().Node(body.Node)
	if !ok || !n.PowerIsNews(body.Agent, body.Epoch, body.Power) {
		return item{}, false
	}
	return item{body: body, size: 256 + len(body.Error)}, true
}

func (l *link) teardown(t *farrierv1.TeardownDone) item {
	return item{err: l.ours(t.GetNode()), size: 192, body: command.HandoverAck{
		Node: node.ID(t.GetNode()), Agent: l.agent, Epoch: t.GetEpoch()}}
}

func (l *link) bmcSession(b *farrierv1.BMCSession) item {
	err := l.ours(b.GetNode())
	if len(b.GetUri()) > state.MaxBMCURI {
		err = fault.New(fault.TooLarge, "read an agent's request", "a BMC session's URI of %d bytes; at most %d", len(b.Uri), state.MaxBMCURI)
	}
	return item{bmc: b, err: err, size: 256 + len(b.GetUri()), body: command.RecordBMCSession{
		Node: node.ID(b.GetNode()), Session: l.session, Agent: l.agent, URI: b.GetUri(), Opened: b.GetOpened()}}
}

// progress is kept if it is of the step in work.
func (l *link) progress(p *farrierv1.StepProgress) {
	ref := p.GetRef()
	v := l.d.cfg.Replica.View()
	n, ok := v.Node(node.ID(ref.GetNode()))
	if !ok || n.Group != l.group || !n.FlowOpen || uint64(n.Flow) != ref.GetFlow() || p.GetProgress() == nil {
		return
	}
	text := p.Progress
	text.Text = clip(text.Text, 256)
	l.d.progress.Put(n.ID, progress.Said{Flow: n.Flow, Step: int(ref.GetStep()), What: text})
}
