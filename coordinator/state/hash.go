package state

import (
	"encoding/binary"
	"reflect"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/table"
)

func (d *Tables) newNodeTable() table.Table[node.ID, node.Node] {
	var w canon.Writer // for the applier's goroutine only, as packing is
	return table.New(table.Spec[node.ID, node.Node]{
		Key: func(n *node.Node) node.ID { return n.ID }, Hash: hashNode, Index: d.indexNode,
		Pack: func(n *node.Node) string {
			node.WritePacked(&w, n)
			return string(w.Bytes())
		},
		Unpack: func(packed string) *node.Node {
			n, _ := node.Unpack(packed)
			return n
		},
	})
}

// hashNode hashes the whole node, but takes the part that seldom changes from the old row when that part is the
// same: most changes are of locks and states.
func hashNode(h *canon.Writer, n, old *node.Node, aux uint64) (sum, newAux uint64) {
	if old == nil || !node.SameBody(n, old) {
		h.Reset()
		node.WriteBody(h, n)
		aux = h.Sum()
	}
	h.Reset()
	h.Num(aux)
	node.WriteHead(h, n)
	return h.Sum(), aux
}

// packedNode is a packed node for the table. Its hash is that of the very bytes, as hashNode makes it.
func packedNode(h *canon.Writer, packed string, body int) table.Packed {
	p := table.Packed{Text: packed, Aux: xxhash.Sum64String(packed[body:])}
	h.Reset()
	h.Num(p.Aux)
	h.Plain(packed[:body])
	p.Sum = h.Sum()
	return p
}

func hashPort(h *canon.Writer, p *node.Port) {
	h.Str(p.ID, string(p.Node), p.Address, p.Name, p.IP)
	h.Flag(p.PXEEnabled)
	h.Num(p.Version)
}

func (d *Tables) newFlowTable() table.Table[flow.ID, flow.Flow] {
	return table.New(table.Spec[flow.ID, flow.Flow]{Key: func(f *flow.Flow) flow.ID { return f.ID }, Hash: hashFlow, Index: d.indexFlow})
}

// hashFlow hashes the whole flow, but of its steps only those that changed: aux is the sum of all steps' hashes.
func hashFlow(h *canon.Writer, f, old *flow.Flow, aux uint64) (sum, newAux uint64) {
	before := []flow.Step(nil)
	if old != nil {
		before = old.Steps
	} else {
		aux = 0
	}
	for i := range max(len(f.Steps), len(before)) {
		if i < len(f.Steps) && i < len(before) && sameStep(&f.Steps[i], &before[i]) {
			continue
		}
		if i < len(before) {
			aux -= stepSum(h, i, &before[i])
		}
		if i < len(f.Steps) {
			aux += stepSum(h, i, &f.Steps[i])
		}
	}
	h.Reset()
	h.Num(aux)
	hashFlowHead(h, f)
	return h.Sum(), aux
}

func sameList(a, b []string) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

func sameMap(a, b map[string]string) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

func stepSum(h *canon.Writer, i int, st *flow.Step) uint64 {
	h.Reset()
	h.Num(uint64(i))
	hashStep(h, st)
	return h.Sum()
}

// sameStep tells cheaply that two steps are the same; see node.SameBody. False is always safe.
func sameStep(a, b *flow.Step) bool {
	return a.Status == b.Status && a.Attempt == b.Attempt && a.Tries == b.Tries && a.Error == b.Error &&
		a.Interface == b.Interface && a.Name == b.Name && a.Class == b.Class && a.Executor == b.Executor &&
		a.Abortable == b.Abortable && a.Cleanup == b.Cleanup && a.StartedAt.Equal(b.StartedAt) && a.EndedAt.Equal(b.EndedAt) &&
		sameMap(a.Args, b.Args) && sameMap(a.Facts, b.Facts) &&
		sameList(a.SecretArgs, b.SecretArgs)
}

func hashFlowHead(h *canon.Writer, f *flow.Flow) {
	h.Num(uint64(f.ID))
	h.Str(f.Node, f.Verb, f.AbortBy, f.Error, f.Actor)
	h.Num(uint64(f.Kind))
	h.Num(uint64(f.Status))
	h.Num(uint64(f.Cur))
	h.Num(uint64(f.Phase))
	h.Num(uint64(f.Boots))
	h.Flag(f.Manual, f.AbortRequested, f.DeleteAfter, f.Boot.Contact)
	h.Str(f.Boot.ID, f.Boot.KeyHash)
	h.Dur(f.Boot.Expires)
	h.Dur(f.Boot.SilentAt)
	h.Dict(f.Facts)
	h.When(f.StartedAt)
	h.When(f.EndedAt)
	h.Num(uint64(len(f.Steps)))
}

func hashStep(h *canon.Writer, st *flow.Step) {
	h.Str(st.Interface, st.Name, st.Error, st.Attempt.Boot)
	h.Num(uint64(st.Class))
	h.Num(uint64(st.Executor))
	h.Num(uint64(st.Status))
	h.Num(uint64(st.Tries))
	h.Flag(st.Abortable, st.Cleanup, st.Attempt.Open, st.Attempt.Resumed)
	h.Dict(st.Args)
	h.List(st.SecretArgs)
	h.Dict(st.Facts)
	h.Num(uint64(st.Attempt.N))
	h.Num(uint64(st.Attempt.Token))
	h.Dur(st.Attempt.Deadline)
	h.Dur(st.Attempt.NotBefore)
	h.When(st.StartedAt)
	h.When(st.EndedAt)
	if st.Attempt.CallDeadline != 0 { // it came later
		h.Dur(st.Attempt.CallDeadline)
	}
}

func hashInventory(h *canon.Writer, i *Inventory) {
	h.Str(string(i.Node))
	h.When(i.At)
	h.Raw(i.Data)
}

func hashBMCSessions(h *canon.Writer, b *BMCSessions) {
	h.Str(string(b.Node))
	h.Num(uint64(len(b.Sessions)))
	for _, s := range b.Sessions {
		h.Str(s.URI, s.Agent, s.Session)
	}
}

func hashSession(h *canon.Writer, s *Session) {
	h.Str(s.ID, s.Agent, s.Actor, s.Journal)
	h.Num(s.Incarnation)
	h.Dur(s.Deadline)
	h.Flag(s.Client)
	if s.TTL != 0 { // it came later
		h.Dur(s.TTL)
	}
}

func hashAgent(h *canon.Writer, a *Agent) {
	h.Str(a.Name, a.Group, a.Session, a.Journal, a.Version, a.RamdiskURL, a.HTTPURL, a.RamdiskPin, a.Alarm)
	h.List(a.Drivers)
	h.Num(uint64(a.Weight))
	h.Num(uint64(a.Level))
	h.Num(a.Incarnation)
	h.Flag(a.Draining, a.Removed)
	h.When(a.RegisteredAt)
	h.Dur(a.EndedAt)
}

func hashRing(h *canon.Writer, r *Ring) {
	h.Str(r.Group, r.Driver)
	h.Num(r.Epoch)
}

func hashClient(h *canon.Writer, c *Client) {
	h.Str(c.ID, c.Actor)
	h.Num(c.Floor)
	h.Num(c.High)
	h.Num(uint64(c.Count))
	h.Dur(c.UsedAt)
	h.Flag(c.Ended)
}

func hashAnswer(h *canon.Writer, a *Answer) {
	h.Str(a.Client)
	h.Num(a.Seq)
	h.Raw(a.Digest[:])
	h.Flag(a.Gone)
	hashResult(h, &a.Result)
}

func hashResult(h *canon.Writer, r *command.Result) {
	h.Num(r.Index)
	h.Str(string(r.Node), r.Session)
	h.Num(uint64(r.Flow))
	h.Num(uint64(r.Token))
	h.Num(r.Version)
	h.Num(r.Count)
	h.Num(uint64(r.Flags))
	h.Num(uint64(len(r.Results)))
	for i := range r.Results {
		hashResult(h, &r.Results[i])
	}
	if r.Err != nil {
		h.Str(r.Err.Error())
	}
}

func hashJoinToken(h *canon.Writer, t *JoinToken) {
	h.Str(t.ID, t.Role, t.Name, t.Group)
	h.Raw(t.Hash[:])
	h.Dur(t.Expires)
	if t.UsedBy != ([32]byte{}) {
		h.Raw(t.UsedBy[:])
	}
	if t.By != "" { // it came later
		h.Str("by", t.By)
	}
}

func hashCertificate(h *canon.Writer, c *Certificate) {
	h.Raw(c.Key[:])
	h.Str(c.Role, c.Name, c.Group, c.InvitedBy)
	h.When(c.JoinedAt)
	h.When(c.RenewedAt)
	h.Dur(c.Ends)
	h.Str(c.RevokedBy, c.Reason)
	h.When(c.RevokedAt)
}

func hashMember(h *canon.Writer, m *command.Member) {
	h.Str(m.ID, m.RaftAddress, m.APIAddress, m.RackAddress, m.Version)
	h.Num(uint64(m.Level))
}

func hashEvent(h *canon.Writer, e *event) {
	h.Num(e.Index)
	h.Num(uint64(e.Ordinal))
	h.Str(e.Type, string(e.Node), e.NodeName, e.Actor)
	h.When(e.At)
	for _, f := range e.Fields {
		h.Str(f.Key, f.Value)
	}
}

func hashAlarm(h *canon.Writer, a *Alarm) {
	h.Num(a.ID)
	h.Num(a.Index)
	h.When(a.At)
	h.Str(a.Text)
}

// hash joins the tables' hashes and the root's.
func (d *Tables) hash() [16]byte {
	var h canon.Writer
	r := &d.Root
	h.Num(r.index)
	h.Num(uint64(r.ordinal))
	h.Dur(r.Elapsed)
	h.Str(r.Cluster.ID)
	h.Num(uint64(r.Cluster.Generation))
	h.Num(uint64(r.Cluster.Level))
	h.Raw(r.Cluster.CACert)
	node.WriteSealed(&h, r.Cluster.CAKey)
	h.Num(r.Cluster.Tokens)
	hashSettings(&h, &r.Settings)
	h.Num(r.LastFlow)
	h.Num(r.alarms)
	h.Num(r.evicted.Index)
	h.Num(uint64(r.evicted.Ordinal))
	for _, sum := range [...]uint64{
		d.Nodes.Sum(), d.Ports.Sum(), d.Flows.Sum(), d.Inventories.Sum(), d.Sessions.Sum(), d.Agents.Sum(), d.Rings.Sum(),
		d.Clients.Sum(), d.Answers.Sum(), d.JoinTokens.Sum(), d.Members.Sum(), d.events.Sum(), d.alarms.Sum(),
	} {
		h.Num(sum)
	}
	if d.BMCs.Sum() != 0 { // tables that came later: without rows they leave the hash of older snapshots alone
		h.Str("bmc sessions")
		h.Num(d.BMCs.Sum())
	}
	if d.Certificates.Sum() != 0 {
		h.Str("roster")
		h.Num(d.Certificates.Sum())
	}
	var out [16]byte
	binary.LittleEndian.PutUint64(out[:8], h.Sum())
	h.Plain("second half")
	binary.LittleEndian.PutUint64(out[8:], h.Sum())
	return out
}

func hashSettings(h *canon.Writer, s *command.Settings) {
	for _, d := range [...]time.Duration{
		s.SessionTTL, s.DeployTimeout, s.CleanTimeout, s.InspectTimeout, s.BootTTL, s.RamdiskSilence, s.RamdiskHeartbeat,
		s.BMCChangeDeadline, s.StepDeadline,
	} {
		h.Dur(d)
	}
	for _, n := range [...]uint32{s.StepTries, s.BootTries, s.MaxDeploy, s.MaxClean} {
		h.Num(uint64(n))
	}
	h.Flag(s.AutomatedClean)
	h.Str(s.Erase)
}
