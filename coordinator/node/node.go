package node

import (
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/coordinator/lock"
)

// ID is a node's UUID in canonical lower-case text.
type ID string

// Power is what was last read from the BMC.
type Power uint8

// The power states of Ironic that are stored; transitions are targets, not states.
const (
	PowerUnknown Power = iota
	PowerOn
	PowerOff
)

func (p Power) String() string {
	switch p {
	case PowerOn:
		return "power on"
	case PowerOff:
		return "power off"
	default:
		return ""
	}
}

// ParsePower reads Ironic's text; everything else is PowerUnknown.
func ParsePower(s string) Power {
	switch s {
	case "power on":
		return PowerOn
	case "power off":
		return PowerOff
	default:
		return PowerUnknown
	}
}

// Node is the record of one machine. Records are immutable: a change makes a new one (see Clone). Maps and
// slices are never written once the record is in a table.
type Node struct {
	ID     ID
	Name   string
	Driver string // hardware type
	Group  string

	Provision       lifecycle.State
	TargetProvision lifecycle.State // lifecycle.None when stable
	Power           Power
	TargetPower     string // text of the power verb in work, "" when none

	Maintenance       bool
	MaintenanceReason string
	Fault             string
	LastError         string

	Owner     string // agent name; "" when no live agent could take it
	PrevOwner string // agent that has not yet acknowledged the handover
	Epoch     uint64 // rises with each change of Owner

	Lock     Lock       // zero when free
	Token    lock.Token // highest ever granted for this node
	Flow     flow.ID    // the open flow, or the last; 0 when none
	FlowOpen bool

	Description, ResourceClass, LesseeID, OwnerID string
	Traits                                        []string
	Properties, Extra                             map[string]string
	DriverInfo                                    map[string]string // without secrets
	Secrets                                       map[string]Sealed // driver_info keys that are secret
	AutomatedClean                                *bool
	Protected, Retired                            bool
	ProtectedReason                               string
	BootMode                                      string
	WeakBoot                                      bool

	Instance Instance
	Tenanted bool // a tenant's data may be on the disks: set when a deploy starts writing
	Wipe     *Wipe
	Written  []string // stable ids of the disks that images were written to and that no wipe has covered since

	Version            uint64 // rises with every change
	CreatedAt          time.Time
	UpdatedAt          time.Time
	ProvisionUpdatedAt time.Time
}

// Sealed is a secret as the proposer sealed it: opaque here.
type Sealed struct {
	KeyID uint32
	Box   []byte
}

// Lock is the exclusive right to act on the node. The zero Lock is free.
type Lock struct {
	Token   lock.Token
	Session string // holder's session id (an agent's or a client's)
	Holder  string // "agent rack1-a", "operator alice"
	Task    string
	Purpose string
	Since   time.Time // for people
	Flow    flow.ID   // the flow behind it; 0 when none: it falls free when the session ends
}

// Held tells whether somebody has the lock.
func (l Lock) Held() bool { return l.Token != 0 }

// Instance is what a deploy was asked to put on the node.
type Instance struct {
	UUID, Hostname               string
	ImageURL, ImageSHA, ImageFmt string
	RootDeviceHints, MetaData    map[string]string
	UserData, NetworkData        Sealed
	ImageDigest, DiskID          string // what was written, and where
}

// The methods of a wipe. A waiver is an operator's word, the others are what a ramdisk did.
const (
	WipeDiscard   = "discard"
	WipeOverwrite = "overwrite"
	WipeMetadata  = "metadata"
	WipeWaiver    = "waiver"
)

// Wipe is the record that lets a node become available after a tenancy.
type Wipe struct {
	Method  string   // discard, overwrite, metadata (the weakest of the disks'), waiver
	Disks   []string // stable ids of the disks that were erased; none of a waiver
	Sampled uint64   // places that were read back and found empty, of all disks
	Who     string
	Reason  string
	At      time.Time
}

// Port is a network interface of a node.
type Port struct {
	ID         string // UUID
	Node       ID
	Address    string // MAC, lower case with colons
	Name       string
	PXEEnabled bool
	IP         string
	Version    uint64
}

// Clone is a shallow copy to change and put back; maps and slices that change must be replaced, not written.
func (n *Node) Clone() *Node {
	c := *n
	return &c
}

// Orphaned tells that nobody has the node, and nobody has to let go of it.
func (n *Node) Orphaned() bool { return n.Owner == "" && n.PrevOwner == "" }
