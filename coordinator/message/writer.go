package message

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// hidden stands for a secret in every reply. In an update it means: as it is.
const hidden = "******"

// Depth says how much of a node a reply holds.
type Depth uint8

// The depths.
const (
	Brief Depth = iota // lists: the open flow without its steps
	Whole              // one node: ports, the flow with its steps
)

// Writer shows nodes as callers see them. What it takes is the leader's memory, and empty elsewhere.
type Writer struct {
	// Queued is how many callers wait for a node's lock.
	Queued func(node.ID) int
	// Progress is what the node's running step last said of itself.
	Progress func(node.ID) (flow.ID, int, *farrierv1.Progress, bool)
}

// Node is the node as callers see it. Secrets are hidden.
func (w *Writer) Node(v *state.View, n *node.Node, d Depth) *farrierv1.Node {
	out := &farrierv1.Node{
		Id: string(n.ID), Name: n.Name, Driver: n.Driver, Group: n.Group,
		ProvisionState: n.Provision.String(), TargetProvisionState: n.TargetProvision.String(),
		PowerState: n.Power.String(), TargetPowerState: n.TargetPower,
		Maintenance: n.Maintenance, MaintenanceReason: n.MaintenanceReason, Fault: n.Fault, LastError: n.LastError,
		Agent: n.Owner, PreviousAgent: n.PrevOwner, Description: n.Description, ResourceClass: n.ResourceClass,
		Traits: slices.Clone(n.Traits), Properties: maps.Clone(n.Properties), DriverInfo: driverInfoOut(n),
		Extra: maps.Clone(n.Extra), Instance: instanceOut(n.Instance), AutomatedClean: n.AutomatedClean,
		Protected: n.Protected, ProtectedReason: n.ProtectedReason, Retired: n.Retired, Owner: n.OwnerID, Lessee: n.LesseeID,
		BootMode: n.BootMode, WeakBoot: n.WeakBoot, Lock: w.Lock(n), Wipe: wipeOut(n.Wipe), Tenanted: n.Tenanted,
		Version: n.Version, CreatedAt: Stamp(n.CreatedAt), UpdatedAt: Stamp(n.UpdatedAt), ProvisionUpdatedAt: Stamp(n.ProvisionUpdatedAt),
	}
	if n.Flow != 0 && (d == Whole || n.FlowOpen) {
		if f, ok := v.Flow(n.Flow); ok {
			out.Flow = w.flowOut(n.ID, f, d)
		}
	}
	if d == Whole {
		for _, p := range v.Ports(n.ID) {
			out.Ports = append(out.Ports, Port(v, p))
		}
	}
	return out
}

func driverInfoOut(n *node.Node) map[string]string {
	out := maps.Clone(n.DriverInfo)
	for k := range n.Secrets {
		if out == nil {
			out = map[string]string{}
		}
		out[k] = hidden
	}
	return out
}

func instanceOut(i node.Instance) *farrierv1.Instance {
	if i.UUID == "" && i.ImageURL == "" {
		return nil
	}
	out := &farrierv1.Instance{Uuid: i.UUID, Hostname: i.Hostname, RootDeviceHints: maps.Clone(i.RootDeviceHints),
		ImageDigest: i.ImageDigest, DiskId: i.DiskID}
	if i.ImageURL != "" {
		out.Image = &farrierv1.Image{Url: i.ImageURL, Sha256: i.ImageSHA, Format: i.ImageFmt}
	}
	return out
}

func wipeOut(w *node.Wipe) *farrierv1.WipeRecord {
	if w == nil {
		return nil
	}
	return &farrierv1.WipeRecord{Method: w.Method, Disks: slices.Clone(w.Disks), Sampled: w.Sampled, Who: w.Who, Reason: w.Reason, At: Stamp(w.At)}
}

// Lock is the lock of a node as callers see it, nil when the lock is free.
func (w *Writer) Lock(n *node.Node) *farrierv1.Lock {
	if !n.Lock.Held() {
		return nil
	}
	return &farrierv1.Lock{Node: string(n.ID), NodeName: n.Name, Holder: n.Lock.Holder, Session: n.Lock.Session, Task: n.Lock.Task,
		Purpose: n.Lock.Purpose, Token: uint64(n.Lock.Token), Since: Stamp(n.Lock.Since), Queued: uint32(max(w.Queued(n.ID), 0))}
}

func (w *Writer) flowOut(id node.ID, f *flow.Flow, d Depth) *farrierv1.Flow {
	out := &farrierv1.Flow{Id: uint64(f.ID), Kind: f.Kind.String(), State: flowState(f.Status), Current: uint32(max(f.Cur, 0)),
		Error: f.Error, AbortRequested: f.AbortRequested, Boots: f.Boots, BootId: f.Boot.ID, StartedAt: Stamp(f.StartedAt), EndedAt: Stamp(f.EndedAt)}
	var said *farrierv1.Progress
	fid, at, p, ok := w.Progress(id)
	if ok && fid == f.ID && at >= 0 && at < len(f.Steps) && f.Steps[at].Status == flow.Running {
		said = p
	}
	if st := f.Step(); st != nil && out.State == "open" {
		out.Working, out.Queued = stepOut(st), f.Queued()
		if at == f.Cur {
			out.Working.Progress = said
		}
	}
	if d != Whole {
		return out
	}
	for i := range f.Steps {
		out.Steps = append(out.Steps, stepOut(&f.Steps[i]))
	}
	if said != nil {
		out.Steps[at].Progress = said
	}
	return out
}

func stepOut(s *flow.Step) *farrierv1.Step {
	return &farrierv1.Step{Interface: s.Interface, Name: s.Name, Class: s.Class.String(), Executor: s.Executor.String(),
		State: stepState(s.Status), Attempt: s.Attempt.N, Abortable: s.Abortable, Error: s.Error,
		StartedAt: Stamp(s.StartedAt), EndedAt: Stamp(s.EndedAt), Facts: maps.Clone(s.Facts)}
}

func flowState(s flow.Status) string {
	switch s {
	case flow.Done:
		return "done"
	case flow.Failed:
		return "failed"
	case flow.Aborted:
		return "aborted"
	default:
		return "open"
	}
}

func stepState(s flow.Status) string {
	switch s {
	case flow.Running:
		return "running"
	case flow.Done:
		return "done"
	case flow.Failed:
		return "failed"
	case flow.Aborted:
		return "aborted"
	case flow.Skipped:
		return "skipped"
	default:
		return "pending"
	}
}

// Stamp is a time of the state in a message, nil if it is not known.
func Stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
