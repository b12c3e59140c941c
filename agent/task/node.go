package task

import (
	"context"
	"log/slog"
	"time"

	"github.com/farrier-project/farrier/agent/bmc"
	"github.com/farrier-project/farrier/agent/work"
)

// Node is what the coordinators assigned: one consistent version. It is never written after it was handed over.
// DriverInfo holds credentials in clear: it stays in memory and is never logged.
type Node struct {
	ID, Name, Driver                string
	DriverInfo                      map[string]string
	Ports                           []Port
	Token                           uint64 // highest granted
	Boot                            *Boot  // nil: no boot is authorised
	Epoch                           uint64 // of the assignment
	PowerState, ProvisionState      string
	TargetProvisionState, LastError string   // as the last transition left them; not sent with assignments
	BMCSessions                     []string // URIs that others, or earlier lives of this agent, may have open
	Watch                           Watch
}

// Watch is what the agent does about a node's power while nothing is ordered.
type Watch uint8

// The watches.
const (
	WatchNone     Watch = iota // nothing
	WatchPower                 // it is read now and then
	WatchRecovery              // its BMC did not answer: it is tried more seldom
)

// ParseWatch reads an assignment's text. What it does not know is WatchNone.
func ParseWatch(text string) Watch {
	switch text {
	case "read":
		return WatchPower
	case "recover":
		return WatchRecovery
	default:
		return WatchNone
	}
}

// LogValue keeps credentials out of logs.
func (n *Node) LogValue() slog.Value { return slog.StringValue(n.ID) }

// String keeps credentials out of texts.
func (n *Node) String() string { return "node " + n.ID }

// Target is the node's BMC.
func (n *Node) Target() bmc.Target {
	return bmc.Target{Node: n.ID, DriverInfo: n.DriverInfo, Sessions: n.BMCSessions}
}

// Port is one of the node's network interfaces.
type Port struct {
	Address    string // MAC, lower case with colons
	IP         string
	PXEEnabled bool
}

// Boot authorises one start of the ramdisk.
type Boot struct {
	ID, Secret string        // hex
	KeyHash    string        // hex; once claimed, the only key that may use it
	Expires    time.Duration // boottime
	Flow       uint64
	Ramdisk    string
	// What the BMC said of its machine to the agent that prepared the boot; "" before, and where it did not say.
	SystemUUID, Serial string
}

// LogValue keeps the secret out of logs.
func (b *Boot) LogValue() slog.Value { return slog.StringValue(b.ID) }

// Sink takes what goes up. Calls do not block; what is said while there is no stream may be dropped, since the
// next hello says all outcomes that are not confirmed.
type Sink interface {
	Report(work.Outcome)
	TornDown(node string, epoch uint64)
	Capacity(free int)
}

// Ramdisk takes orders for the machine itself. Outcomes come back through Manager.Handle(work.Reported).
type Ramdisk interface {
	Deliver(node *Node, o work.Order)
	Cancel(o work.Order, reason string)
}

// Executor runs one attempt of a bmc or agent step, to its outcome. ctx ends with the attempt's deadline or when
// the attempt is stopped.
type Executor interface {
	Run(ctx context.Context, t *Exclusive) work.Outcome
}

// ExecutorFunc is a function as an Executor.
type ExecutorFunc func(ctx context.Context, t *Exclusive) work.Outcome

// Run implements Executor.
func (f ExecutorFunc) Run(ctx context.Context, t *Exclusive) work.Outcome { return f(ctx, t) }

// Caller gives turns at BMCs: one at a time per BMC, in order. fence ends the sessions that earlier owners may
// have open on it; it is called before the first effect.
type Caller interface {
	Turn(ctx context.Context, driver string, t bmc.Target, fn func(ctx context.Context, c bmc.Client, fence func(context.Context) error) error) error
	// Glance is a turn to read in nobody's way: Busy, without fn, when somebody has the BMC or waits for it; and when somebody comes
	// for it, fn's ctx ends, with a cause of kind Aborted.
	Glance(ctx context.Context, driver string, t bmc.Target, fn func(ctx context.Context, c bmc.Client) error) error
}

// Keeper is told of assignments, so that what is served to machines follows. Calls come one at a time.
type Keeper interface {
	Assigned(n *Node)
	Forgotten(node string)
}

// Wait says how long an Acquire may wait in the node's queue.
type Wait struct {
	For     time.Duration // 0: do not wait
	Patient bool          // as long as the caller stays
}

// DefaultWait is three seconds, as long as Ironic's three tries one second apart.
func DefaultWait() Wait { return Wait{For: 3 * time.Second} }

// Locker asks the coordinators for locks. Locked: somebody else holds it, after the wait.
type Locker interface {
	Lock(ctx context.Context, node, task, purpose string, w Wait) (token uint64, err error)
	Unlock(ctx context.Context, node string, token uint64) error
}

// Transition is a move that a task asks for.
type Transition struct {
	Node, Event string
	Token       uint64
	Target      string // overrides the table's target; "": none
	LastError   string
	HasCallback bool // work follows under the lock
	Order       *work.Order
}

// Lifecycle moves nodes. It answers with the node as it is after the move, or IllegalState.
type Lifecycle interface {
	Fire(ctx context.Context, tr Transition) (*Node, error)
}
