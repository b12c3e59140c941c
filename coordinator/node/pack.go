package node

import (
	"math"
	"reflect"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
)

// A packed node is its canonical bytes: a head of what often changes, then a body of what seldom does and is most of it. As
// such nodes come in the log, are hashed, lie in memory at rest, and stand in snapshots; the body is copied from one to the
// other as it is. The form is therefore never changed: a field that comes later is written behind all others, and only if
// it has a value, in a form of the next number. So a node without it has the bytes and the hash that it ever had, and all forms
// are read by one reader. lifecycle's states keep their numbers.

// PackForm is the form that is written: form 1, and behind it Written if there is any.
const PackForm = 2

// Packed is a packed node, and the form that it has.
type Packed struct {
	Form uint32
	Data string
}

// Pack packs a node in the newest form.
func Pack(n *Node) Packed {
	w := canon.NewWriter(2 << 10) // most nodes are smaller
	WritePacked(w, n)
	return Packed{Form: PackForm, Data: string(w.Bytes())}
}

// AtRest tells whether nothing is going on with a node.
func (n *Node) AtRest() bool { return !n.FlowOpen && !n.Lock.Held() && n.PrevOwner == "" }

// WritePacked writes head and body, and answers where the body begins.
func WritePacked(w *canon.Writer, n *Node) (body int) {
	w.Reset()
	WriteHead(w, n)
	body = w.Len()
	WriteBody(w, n)
	return body
}

// WriteBody writes maps, lists and secrets.
func WriteBody(w *canon.Writer, n *Node) {
	w.Dict(n.Properties)
	w.Dict(n.Extra)
	w.Dict(n.DriverInfo)
	canon.DictFunc(w, n.Secrets, WriteSealed)
	w.Dict(n.Instance.RootDeviceHints)
	w.Dict(n.Instance.MetaData)
	w.List(n.Traits)
	if len(n.Written) > 0 { // it came later: a node without it has the bytes of form 1
		w.List(n.Written)
	}
}

// SameBody tells cheaply that two nodes have the same body: maps and slices are replaced, never written, so the same
// map is an equal map. False is always safe.
func SameBody(a, b *Node) bool {
	return sameMap(a.Properties, b.Properties) && sameMap(a.Extra, b.Extra) && sameMap(a.DriverInfo, b.DriverInfo) &&
		sameMap(a.Secrets, b.Secrets) &&
		sameMap(a.Instance.RootDeviceHints, b.Instance.RootDeviceHints) && sameMap(a.Instance.MetaData, b.Instance.MetaData) &&
		sameList(a.Traits, b.Traits) && sameList(a.Written, b.Written)
}

func sameMap[V any](a, b map[string]V) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

func sameList(a, b []string) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// WriteHead writes all but the body.
func WriteHead(w *canon.Writer, n *Node) {
	w.Str(string(n.ID), n.Name, n.Driver, n.Group)
	w.Num(uint64(n.Provision))
	w.Num(uint64(n.TargetProvision))
	w.Num(uint64(n.Power))
	w.Str(n.TargetPower, n.MaintenanceReason, n.Fault, n.LastError, n.Owner, n.PrevOwner)
	w.Flag(n.Maintenance, n.FlowOpen, n.Protected, n.Retired, n.WeakBoot, n.Tenanted)
	w.Num(n.Epoch)
	w.Num(uint64(n.Lock.Token))
	w.Str(n.Lock.Session, n.Lock.Holder, n.Lock.Task, n.Lock.Purpose)
	w.When(n.Lock.Since)
	w.Num(uint64(n.Lock.Flow))
	w.Num(uint64(n.Token))
	w.Num(uint64(n.Flow))
	w.Str(n.Description, n.ResourceClass, n.LesseeID, n.OwnerID, n.ProtectedReason, n.BootMode)
	if n.AutomatedClean != nil {
		w.Flag(true, *n.AutomatedClean)
	} else {
		w.Flag(false)
	}
	in := &n.Instance
	w.Str(in.UUID, in.Hostname, in.ImageURL, in.ImageSHA, in.ImageFmt, in.ImageDigest, in.DiskID)
	WriteSealed(w, in.UserData)
	WriteSealed(w, in.NetworkData)
	if x := n.Wipe; x != nil {
		w.Flag(true)
		w.Str(x.Method, x.Who, x.Reason)
		w.List(x.Disks)
		w.Num(x.Sampled)
		w.When(x.At)
	} else {
		w.Flag(false)
	}
	w.Num(n.Version)
	w.When(n.CreatedAt)
	w.When(n.UpdatedAt)
	w.When(n.ProvisionUpdatedAt)
}

// WriteSealed writes a sealed value.
func WriteSealed(w *canon.Writer, s Sealed) {
	w.Num(uint64(s.KeyID))
	w.Raw(s.Box)
}

func readSealed(r *canon.Reader) Sealed {
	return Sealed{KeyID: uint32(r.Num()), Box: r.Raw()}
}

func readState(r *canon.Reader) lifecycle.State {
	return lifecycle.State(min(r.Num(), math.MaxUint8))
}

// Unpack reads a packed node of any form; ok is false for bytes that were not written by WritePacked. Its texts share them.
func Unpack(packed string) (n *Node, ok bool) {
	n, _, ok = readPacked(packed, func(*Node) bool { return false })
	return n, ok
}

// UnpackHead reads the head, checks the body, and answers where that begins.
func UnpackHead(packed string) (n *Node, body int, ok bool) {
	return readPacked(packed, func(*Node) bool { return true })
}

// UnpackAwake reads the head, and the body as well unless the node is AtRest, for one that is stays packed.
func UnpackAwake(packed string) (n *Node, body int, ok bool) {
	return readPacked(packed, (*Node).AtRest)
}

// readPacked reads in the order in which WriteHead and WriteBody write; over says of a head whether the body is only to be checked.
func readPacked(packed string, over func(*Node) bool) (n *Node, body int, ok bool) {
	r := canon.NewReader(packed)
	n = &Node{}
	n.ID = ID(r.Str())
	r.Strs(&n.Name, &n.Driver, &n.Group)
	n.Provision, n.TargetProvision, n.Power = readState(r), readState(r), Power(r.Num())
	r.Strs(&n.TargetPower, &n.MaintenanceReason, &n.Fault, &n.LastError, &n.Owner, &n.PrevOwner)
	for _, b := range [...]*bool{&n.Maintenance, &n.FlowOpen, &n.Protected, &n.Retired, &n.WeakBoot, &n.Tenanted} {
		*b = r.Flag()
	}
	n.Epoch = r.Num()
	n.Lock.Token = lock.Token(r.Num())
	r.Strs(&n.Lock.Session, &n.Lock.Holder, &n.Lock.Task, &n.Lock.Purpose)
	n.Lock.Since = r.When()
	n.Lock.Flow, n.Token, n.Flow = flow.ID(r.Num()), lock.Token(r.Num()), flow.ID(r.Num())
	r.Strs(&n.Description, &n.ResourceClass, &n.LesseeID, &n.OwnerID, &n.ProtectedReason, &n.BootMode)
	if r.Flag() {
		clean := r.Flag()
		n.AutomatedClean = &clean
	}
	in := &n.Instance
	r.Strs(&in.UUID, &in.Hostname, &in.ImageURL, &in.ImageSHA, &in.ImageFmt, &in.ImageDigest, &in.DiskID)
	in.UserData, in.NetworkData = readSealed(r), readSealed(r)
	if r.Flag() {
		x := &Wipe{}
		r.Strs(&x.Method, &x.Who, &x.Reason)
		x.Disks, x.Sampled, x.At = r.List(), r.Num(), r.When()
		n.Wipe = x
	}
	n.Version = r.Num()
	n.CreatedAt, n.UpdatedAt, n.ProvisionUpdatedAt = r.When(), r.When(), r.When()
	body = len(packed) - r.Rest()
	if over(n) {
		r.Over()
	}
	n.Properties, n.Extra, n.DriverInfo = r.Dict(), r.Dict(), r.Dict()
	n.Secrets = canon.ReadDictFunc(r, readSealed)
	in.RootDeviceHints, in.MetaData = r.Dict(), r.Dict()
	n.Traits = r.List()
	if r.Rest() > 0 {
		n.Written = r.List()
	}
	return n, body, r.Whole()
}
