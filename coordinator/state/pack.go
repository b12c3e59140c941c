package state

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
)

// Nodes at rest lie packed: a record of 1.5 KiB takes 4 KiB as a struct with maps, and half of that as the bytes
// that are hashed. A node that is touched is opened, and packed again by a later tick. Packing changes neither
// hash nor snapshot.
//
// A snapshot has all nodes in this form, which is therefore never changed: a field that comes later is written behind all
// others, and only if it has a value, in a form of the next number. So a node without it has the bytes and the hash that
// it ever had, and all forms are read by one reader. lifecycle's states keep their numbers.

// packForm is the form that is written: form 1, and behind it Written if there is any.
const packForm = 2

// packBatch is how many rows one tick looks at.
const packBatch = 512

// atRest tells whether nothing is going on with a node.
func atRest(n *node.Node) bool { return !n.FlowOpen && !n.Lock.Held() && n.PrevOwner == "" }

// packAtRest packs one node, if it is at rest.
func (s *State) packAtRest(id node.ID) {
	if r, ok := s.nodes.rows.get(row[node.ID, node.Node]{key: id}); ok && r.rec != nil && atRest(r.rec) {
		s.nodes.repack(r)
	}
}

// packSome looks at the next rows in order and packs those at rest.
func (s *State) packSome() {
	var rows []row[node.ID, node.Node]
	seen, last := 0, node.ID("")
	s.nodes.rows.ascend(row[node.ID, node.Node]{key: s.packed}, func(r row[node.ID, node.Node]) bool {
		if seen++; seen > packBatch {
			last = r.key
			return false
		}
		if r.rec != nil && atRest(r.rec) {
			rows = append(rows, r)
		}
		return true
	})
	for _, r := range rows {
		s.nodes.repack(r)
	}
	s.packed = last
}

// node is data's, but opens a packed node once although a command looks at it several times.
func (s *State) node(id node.ID) *node.Node {
	r := s.nodeRow(id)
	if r.rec != nil || r.packed == "" {
		return r.rec
	}
	if s.opened == nil || s.opened.ID != id || s.openedFrom != r.packed {
		s.opened, s.openedFrom = s.nodes.open(r), r.packed
	}
	return s.opened
}

// nodeRow is the node's row, the zero row when there is none. A command looks up the same node several times.
func (s *State) nodeRow(id node.ID) row[node.ID, node.Node] {
	if s.nearest.key != id || s.nearestAt != s.nodes.rows.changes || id == "" {
		s.nearest, _ = s.nodes.rows.get(row[node.ID, node.Node]{key: id})
		s.nearestAt = s.nodes.rows.changes
	}
	return s.nearest
}

// packNode writes a node into the hasher's buffer, and answers where the body begins.
func packNode(h *hasher, n *node.Node) (body int) {
	h.reset()
	hashNodeHead(h, n)
	body = len(h.buf)
	hashNodeBody(h, n)
	return body
}

// unpacker reads what a hasher wrote. Texts share the packed bytes. Bytes that no hasher wrote leave it cut.
type unpacker struct {
	rest string
	cut  bool
	skip bool // maps, lists and sealed boxes are read over
}

// take is the next n bytes; fewer are none, and nothing comes after them.
func (u *unpacker) take(n uint64) string {
	if n > uint64(len(u.rest)) {
		u.rest, u.cut = "", true
		return ""
	}
	s := u.rest[:n]
	u.rest = u.rest[n:]
	return s
}

func (u *unpacker) num() uint64 {
	var n uint64
	for i := 0; i < min(len(u.rest), binary.MaxVarintLen64); i++ { // bytes, not runes
		b := u.rest[i]
		if n |= uint64(b&0x7f) << (7 * i); b < 0x80 {
			u.rest = u.rest[i+1:]
			return n
		}
	}
	u.rest, u.cut = "", true
	return 0
}

// count is the number of things that follow, each of at least one byte.
func (u *unpacker) count() uint64 {
	n := u.num()
	if n > uint64(len(u.rest)) {
		u.rest, u.cut = "", true
		return 0
	}
	return n
}

func (u *unpacker) int() int64 {
	n := u.num()
	return int64(n>>1) ^ -int64(n&1) // zig-zag, as binary.AppendVarint
}

func (u *unpacker) str() string { return u.take(u.num()) }

// over reads over so many texts.
func (u *unpacker) over(texts uint64) {
	for range texts {
		u.str()
	}
}

func (u *unpacker) strs(to ...*string) {
	for _, s := range to {
		*s = u.str()
	}
}

func (u *unpacker) flag() bool { return u.take(1) == "\x01" }

func (u *unpacker) when() time.Time {
	if !u.flag() {
		return time.Time{}
	}
	return time.Unix(0, u.int()).UTC()
}

func (u *unpacker) list() []string {
	n := u.count()
	if n == 0 || u.skip {
		u.over(n)
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = u.str()
	}
	return list
}

func (u *unpacker) dict() map[string]string {
	n := u.count()
	if n == 0 || u.skip {
		u.over(2 * n)
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := u.str()
		m[k] = u.str()
	}
	return m
}

func (u *unpacker) sealed() node.Sealed {
	s := node.Sealed{KeyID: uint32(u.num())}
	if box := u.str(); box != "" && !u.skip {
		s.Box = []byte(box)
	}
	return s
}

func (u *unpacker) state() lifecycle.State { return lifecycle.State(min(u.num(), math.MaxUint8)) }

// unpackNode reads what packNode wrote here.
func unpackNode(packed string) *node.Node {
	n, _, _ := readPackedNode(packed, false)
	return n
}

// readPackedNode reads head and body in the order in which hashNodeHead and hashNodeBody write them, and answers where the
// body begins; ok is false for bytes that they did not write. The body of a node at rest may be read over: it stays packed.
func readPackedNode(packed string, over bool) (n *node.Node, body int, ok bool) {
	u := &unpacker{rest: packed}
	n = &node.Node{}
	n.ID = node.ID(u.str())
	u.strs(&n.Name, &n.Driver, &n.Group)
	n.Provision, n.TargetProvision, n.Power = u.state(), u.state(), node.Power(u.num())
	u.strs(&n.TargetPower, &n.MaintenanceReason, &n.Fault, &n.LastError, &n.Owner, &n.PrevOwner)
	for _, b := range [...]*bool{&n.Maintenance, &n.FlowOpen, &n.Protected, &n.Retired, &n.WeakBoot, &n.Tenanted} {
		*b = u.flag()
	}
	n.Epoch = u.num()
	n.Lock.Token = lock.Token(u.num())
	u.strs(&n.Lock.Session, &n.Lock.Holder, &n.Lock.Task, &n.Lock.Purpose)
	n.Lock.Since = u.when()
	n.Lock.Flow, n.Token, n.Flow = flow.ID(u.num()), lock.Token(u.num()), flow.ID(u.num())
	u.strs(&n.Description, &n.ResourceClass, &n.LesseeID, &n.OwnerID, &n.ProtectedReason, &n.BootMode)
	if u.flag() {
		clean := u.flag()
		n.AutomatedClean = &clean
	}
	in := &n.Instance
	u.strs(&in.UUID, &in.Hostname, &in.ImageURL, &in.ImageSHA, &in.ImageFmt, &in.ImageDigest, &in.DiskID)
	in.UserData, in.NetworkData = u.sealed(), u.sealed()
	if u.flag() {
		w := &node.Wipe{}
		u.strs(&w.Method, &w.Who, &w.Reason)
		w.Disks, w.Sampled, w.At = u.list(), u.num(), u.when()
		n.Wipe = w
	}
	n.Version = u.num()
	n.CreatedAt, n.UpdatedAt, n.ProvisionUpdatedAt = u.when(), u.when(), u.when()
	body = len(packed) - len(u.rest)
	u.skip = over && atRest(n)
	n.Properties, n.Extra, n.DriverInfo = u.dict(), u.dict(), u.dict()
	if count := u.count(); count > 0 {
		n.Secrets = make(map[string]node.Sealed, count)
		for range count {
			k := u.str()
			n.Secrets[k] = u.sealed()
		}
	}
	in.RootDeviceHints, in.MetaData = u.dict(), u.dict()
	n.Traits = u.list()
	if u.rest != "" {
		n.Written = u.list()
	}
	return n, body, !u.cut && u.rest == ""
}
