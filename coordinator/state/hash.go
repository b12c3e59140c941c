package state

import (
	"encoding/binary"
	"reflect"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
)

// hasher writes a record as bytes that are equal for equal records, in a buffer that is used again.
type hasher struct {
	buf  []byte
	keys []string
}

func (h *hasher) reset()      { h.buf = h.buf[:0] }
func (h *hasher) sum() uint64 { return xxhash.Sum64(h.buf) }

func (h *hasher) num(n uint64)         { h.buf = binary.AppendUvarint(h.buf, n) }
func (h *hasher) dur(d time.Duration)  { h.buf = binary.AppendVarint(h.buf, int64(d)) }
func (h *hasher) raw(b []byte)         { h.num(uint64(len(b))); h.buf = append(h.buf, b...) }
func (h *hasher) sealed(s node.Sealed) { h.num(uint64(s.KeyID)); h.raw(s.Box) }

// when writes a time for people; the zero time is its own value.
func (h *hasher) when(t time.Time) {
	if t.IsZero() || t.UnixNano() == 0 {
		h.buf = append(h.buf, 0)
		return
	}
	h.buf = append(h.buf, 1)
	h.buf = binary.AppendVarint(h.buf, t.UnixNano())
}

func (h *hasher) str(ss ...string) {
	for _, s := range ss {
		h.num(uint64(len(s)))
		h.buf = append(h.buf, s...)
	}
}

func (h *hasher) flag(bs ...bool) {
	for _, b := range bs {
		if b {
			h.buf = append(h.buf, 1)
		} else {
			h.buf = append(h.buf, 0)
		}
	}
}

func (h *hasher) list(ss []string) {
	h.num(uint64(len(ss)))
	h.str(ss...)
}

func (h *hasher) dict(m map[string]string) {
	h.num(uint64(len(m)))
	for _, k := range h.sorted(m) {
		h.str(k, m[k])
	}
}

// sorted is the keys of a map of texts in order, in a buffer that the next call uses again.
func (h *hasher) sorted(m map[string]string) []string {
	h.keys = h.keys[:0]
	for k := range m {
		h.keys = append(h.keys, k)
	}
	slices.Sort(h.keys)
	return h.keys
}

func newNodeTable() table[node.ID, node.Node] {
	t := newTable(func(n *node.Node) node.ID { return n.ID }, nil, indexNode)
	t.spec.hash = hashNode
	var h hasher // for the applier's goroutine only, as packing is
	t.spec.pack = func(n *node.Node) string {
		packNode(&h, n)
		return string(h.buf)
	}
	t.spec.unpack = unpackNode
	return t
}

// hashNode hashes the whole node, but takes the part that seldom changes from the old row when that part is the
// same: most changes are of locks and states.
func hashNode(h *hasher, n, old *node.Node, aux uint64) (sum, newAux uint64) {
	if old == nil || !sameBody(n, old) {
		h.reset()
		hashNodeBody(h, n)
		aux = h.sum()
	}
	h.reset()
	h.num(aux)
	hashNodeHead(h, n)
	return h.sum(), aux
}

// sameBody tells cheaply that the bodies are the same: maps and slices are replaced, never written, so the same
// map is an equal map. False is always safe.
func sameBody(a, b *node.Node) bool {
	return sameMap(a.Properties, b.Properties) && sameMap(a.Extra, b.Extra) && sameMap(a.DriverInfo, b.DriverInfo) &&
		reflect.ValueOf(a.Secrets).Pointer() == reflect.ValueOf(b.Secrets).Pointer() &&
		sameMap(a.Instance.RootDeviceHints, b.Instance.RootDeviceHints) && sameMap(a.Instance.MetaData, b.Instance.MetaData) &&
		sameList(a.Traits, b.Traits) && sameList(a.Written, b.Written)
}

func sameList(a, b []string) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

func sameMap(a, b map[string]string) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

func hashNodeBody(h *hasher, n *node.Node) {
	h.dict(n.Properties)
	h.dict(n.Extra)
	h.dict(n.DriverInfo)
	names := make([]string, 0, len(n.Secrets))
	for k := range n.Secrets {
		names = append(names, k)
	}
	slices.Sort(names)
	h.num(uint64(len(names)))
	for _, k := range names {
		h.str(k)
		h.sealed(n.Secrets[k])
	}
	h.dict(n.Instance.RootDeviceHints)
	h.dict(n.Instance.MetaData)
	h.list(n.Traits)
	if len(n.Written) > 0 { // it came later: a node without it is hashed as ever
		h.list(n.Written)
	}
}

func hashNodeHead(h *hasher, n *node.Node) {
	h.str(string(n.ID), n.Name, n.Driver, n.Group)
	h.num(uint64(n.Provision))
	h.num(uint64(n.TargetProvision))
	h.num(uint64(n.Power))
	h.str(n.TargetPower, n.MaintenanceReason, n.Fault, n.LastError, n.Owner, n.PrevOwner)
	h.flag(n.Maintenance, n.FlowOpen, n.Protected, n.Retired, n.WeakBoot, n.Tenanted)
	h.num(n.Epoch)
	h.num(uint64(n.Lock.Token))
	h.str(n.Lock.Session, n.Lock.Holder, n.Lock.Task, n.Lock.Purpose)
	h.when(n.Lock.Since)
	h.num(uint64(n.Lock.Flow))
	h.num(uint64(n.Token))
	h.num(uint64(n.Flow))
	h.str(n.Description, n.ResourceClass, n.LesseeID, n.OwnerID, n.ProtectedReason, n.BootMode)
	if n.AutomatedClean != nil {
		h.flag(true, *n.AutomatedClean)
	} else {
		h.flag(false)
	}
	in := &n.Instance
	h.str(in.UUID, in.Hostname, in.ImageURL, in.ImageSHA, in.ImageFmt, in.ImageDigest, in.DiskID)
	h.sealed(in.UserData)
	h.sealed(in.NetworkData)
	if w := n.Wipe; w != nil {
		h.flag(true)
		h.str(w.Method, w.Who, w.Reason)
		h.list(w.Disks)
		h.num(w.Sampled)
		h.when(w.At)
	} else {
		h.flag(false)
	}
	h.num(n.Version)
	h.when(n.CreatedAt)
	h.when(n.UpdatedAt)
	h.when(n.ProvisionUpdatedAt)
}

func hashPort(h *hasher, p *node.Port) {
	h.str(p.ID, string(p.Node), p.Address, p.Name, p.IP)
	h.flag(p.PXEEnabled)
	h.num(p.Version)
}

func newFlowTable() table[flow.ID, flow.Flow] {
	t := newTable(func(f *flow.Flow) flow.ID { return f.ID }, nil, indexFlow)
	t.spec.hash = hashFlow
	return t
}

// hashFlow hashes the whole flow, but of its steps only those that changed: aux is the sum of all steps' hashes.
func hashFlow(h *hasher, f, old *flow.Flow, aux uint64) (sum, newAux uint64) {
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
	h.reset()
	h.num(aux)
	hashFlowHead(h, f)
	return h.sum(), aux
}

func stepSum(h *hasher, i int, st *flow.Step) uint64 {
	h.reset()
	h.num(uint64(i))
	hashStep(h, st)
	return h.sum()
}

// sameStep tells cheaply that two steps are the same; see sameBody. False is always safe.
func sameStep(a, b *flow.Step) bool {
	return a.Status == b.Status && a.Attempt == b.Attempt && a.Tries == b.Tries && a.Error == b.Error &&
		a.Interface == b.Interface && a.Name == b.Name && a.Class == b.Class && a.Executor == b.Executor &&
		a.Abortable == b.Abortable && a.Cleanup == b.Cleanup && a.StartedAt.Equal(b.StartedAt) && a.EndedAt.Equal(b.EndedAt) &&
		sameMap(a.Args, b.Args) && sameMap(a.Facts, b.Facts) &&
		sameList(a.SecretArgs, b.SecretArgs)
}

func hashFlowHead(h *hasher, f *flow.Flow) {
	h.num(uint64(f.ID))
	h.str(f.Node, f.Verb, f.AbortBy, f.Error, f.Actor)
	h.num(uint64(f.Kind))
	h.num(uint64(f.Status))
	h.num(uint64(f.Cur))
	h.num(uint64(f.Phase))
	h.num(uint64(f.Boots))
	h.flag(f.Manual, f.AbortRequested, f.DeleteAfter, f.Boot.Contact)
	h.str(f.Boot.ID, f.Boot.KeyHash)
	h.dur(f.Boot.Expires)
	h.dur(f.Boot.SilentAt)
	h.dict(f.Facts)
	h.when(f.StartedAt)
	h.when(f.EndedAt)
	h.num(uint64(len(f.Steps)))
}

func hashStep(h *hasher, st *flow.Step) {
	h.str(st.Interface, st.Name, st.Error, st.Attempt.Boot)
	h.num(uint64(st.Class))
	h.num(uint64(st.Executor))
	h.num(uint64(st.Status))
	h.num(uint64(st.Tries))
	h.flag(st.Abortable, st.Cleanup, st.Attempt.Open, st.Attempt.Resumed)
	h.dict(st.Args)
	h.list(st.SecretArgs)
	h.dict(st.Facts)
	h.num(uint64(st.Attempt.N))
	h.num(uint64(st.Attempt.Token))
	h.dur(st.Attempt.Deadline)
	h.dur(st.Attempt.NotBefore)
	h.when(st.StartedAt)
	h.when(st.EndedAt)
	if st.Attempt.CallDeadline != 0 { // it came later
		h.dur(st.Attempt.CallDeadline)
	}
}

func hashInventory(h *hasher, i *Inventory) {
	h.str(string(i.Node))
	h.when(i.At)
	h.raw(i.Data)
}

func hashBMCSessions(h *hasher, b *BMCSessions) {
	h.str(string(b.Node))
	h.num(uint64(len(b.Sessions)))
	for _, s := range b.Sessions {
		h.str(s.URI, s.Agent, s.Session)
	}
}

func hashSession(h *hasher, s *Session) {
	h.str(s.ID, s.Agent, s.Actor, s.Journal)
	h.num(s.Incarnation)
	h.dur(s.Deadline)
	h.flag(s.Client)
	if s.TTL != 0 { // it came later
		h.dur(s.TTL)
	}
}

func hashAgent(h *hasher, a *Agent) {
	h.str(a.Name, a.Group, a.Session, a.Journal, a.Version, a.RamdiskURL, a.HTTPURL, a.RamdiskPin, a.Alarm)
	h.list(a.Drivers)
	h.num(uint64(a.Weight))
	h.num(uint64(a.Level))
	h.num(a.Incarnation)
	h.flag(a.Draining, a.Removed)
	h.when(a.RegisteredAt)
	h.dur(a.EndedAt)
}

func hashRing(h *hasher, r *Ring) {
	h.str(r.Group, r.Driver)
	h.num(r.Epoch)
}

func hashClient(h *hasher, c *Client) {
	h.str(c.ID, c.Actor)
	h.num(c.Floor)
	h.num(c.High)
	h.num(uint64(c.Count))
	h.dur(c.UsedAt)
	h.flag(c.Ended)
}

func hashAnswer(h *hasher, a *Answer) {
	h.str(a.Client)
	h.num(a.Seq)
	h.raw(a.Digest[:])
	h.flag(a.Gone)
	hashResult(h, &a.Result)
}

func hashResult(h *hasher, r *command.Result) {
	h.num(r.Index)
	h.str(string(r.Node), r.Session)
	h.num(uint64(r.Flow))
	h.num(uint64(r.Token))
	h.num(r.Version)
	h.num(r.Count)
	h.num(uint64(r.Flags))
	h.num(uint64(len(r.Results)))
	for i := range r.Results {
		hashResult(h, &r.Results[i])
	}
	if r.Err != nil {
		h.str(r.Err.Error())
	}
}

func hashJoinToken(h *hasher, t *JoinToken) {
	h.str(t.ID, t.Role, t.Name, t.Group)
	h.raw(t.Hash[:])
	h.dur(t.Expires)
	if t.UsedBy != ([32]byte{}) {
		h.raw(t.UsedBy[:])
	}
	if t.By != "" { // it came later
		h.str("by", t.By)
	}
}

func hashCertificate(h *hasher, c *Certificate) {
	h.raw(c.Key[:])
	h.str(c.Role, c.Name, c.Group, c.InvitedBy)
	h.when(c.JoinedAt)
	h.when(c.RenewedAt)
	h.dur(c.Ends)
	h.str(c.RevokedBy, c.Reason)
	h.when(c.RevokedAt)
}

func hashMember(h *hasher, m *command.Member) {
	h.str(m.ID, m.RaftAddress, m.APIAddress, m.RackAddress, m.Version)
	h.num(uint64(m.Level))
}

func hashEvent(h *hasher, e *event) {
	h.num(e.Index)
	h.num(uint64(e.Ordinal))
	h.str(e.Type, string(e.Node), e.NodeName, e.Actor)
	h.when(e.At)
	for _, f := range e.Fields {
		h.str(f.Key, f.Value)
	}
}

func hashAlarm(h *hasher, a *Alarm) {
	h.num(a.ID)
	h.num(a.Index)
	h.when(a.At)
	h.str(a.Text)
}

// hash joins the tables' hashes and the root's.
func (d *data) hash() [16]byte {
	var h hasher
	r := &d.root
	h.num(r.index)
	h.num(uint64(r.ordinal))
	h.dur(r.elapsed)
	h.str(r.cluster.ID)
	h.num(uint64(r.cluster.Generation))
	h.num(uint64(r.cluster.Level))
	h.raw(r.cluster.CACert)
	h.sealed(r.cluster.CAKey)
	h.num(r.cluster.Tokens)
	hashSettings(&h, &r.settings)
	h.num(r.flows)
	h.num(r.alarms)
	h.num(r.evicted.Index)
	h.num(uint64(r.evicted.Ordinal))
	for _, sum := range [...]uint64{
		d.nodes.sum, d.ports.sum, d.flows.sum, d.inventories.sum, d.sessions.sum, d.agents.sum, d.rings.sum,
		d.clients.sum, d.answers.sum, d.joinTokens.sum, d.members.sum, d.events.sum, d.alarms.sum,
	} {
		h.num(sum)
	}
	if d.bmcs.sum != 0 { // tables that came later: without rows they leave the hash of older snapshots alone
		h.str("bmc sessions")
		h.num(d.bmcs.sum)
	}
	if d.roster.sum != 0 {
		h.str("roster")
		h.num(d.roster.sum)
	}
	var out [16]byte
	binary.LittleEndian.PutUint64(out[:8], h.sum())
	h.buf = append(h.buf, "second half"...)
	binary.LittleEndian.PutUint64(out[8:], h.sum())
	return out
}

func hashSettings(h *hasher, s *command.Settings) {
	for _, d := range [...]time.Duration{
		s.SessionTTL, s.DeployTimeout, s.CleanTimeout, s.InspectTimeout, s.BootTTL, s.RamdiskSilence, s.RamdiskHeartbeat,
		s.BMCChangeDeadline, s.StepDeadline,
	} {
		h.dur(d)
	}
	for _, n := range [...]uint32{s.StepTries, s.BootTries, s.MaxDeploy, s.MaxClean} {
		h.num(uint64(n))
	}
	h.flag(s.AutomatedClean)
	h.str(s.Erase)
}
