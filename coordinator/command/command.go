package command

import (
	"time"

	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
)

// Command is one change asked of the replicated state. Everything that is not a function of the state, such as
// time for people, random ids and sealed secrets, was settled by the proposer and is in the command.
type Command struct {
	Header Header
	Body   Body
}

// Header is common to all commands.
type Header struct {
	Cluster string
	At      time.Time // wall clock of the proposer: for people, never compared
	Actor   string    // "operator alice", "agent rack1-a", "coordinator c1"
	Request RequestID // zero: not deduplicated
	Level   uint32    // the feature level that Apply's computation is keyed on
	Seed    [16]byte  // fresh randomness: boot ids and instance ids are derived from it
}

// RequestID makes a repeat harmless: the stored answer is returned instead of a second execution.
type RequestID struct {
	Client string // client session, random per process; belongs to the actor
	Seq    uint64
	Digest [16]byte // of the request: a repeat with another digest is refused
}

// IsZero tells whether the command is deduplicated at all.
func (r RequestID) IsZero() bool { return r.Client == "" }

// Body is the closed set of commands below.
type Body interface{ body() }

type (
	// InitCluster is the first command of a cluster.
	InitCluster struct {
		ClusterID string
		CACert    []byte // DER
		CAKey     node.Sealed
		Settings  Settings
		Issued    []Issued // with what the roster of certificates begins
	}
	// Tick moves elapsed and renews sessions. D is at most one second; the first tick of a term has FirstOfTerm
	// set and D zero, and gives every session a full TTL.
	Tick struct {
		D           time.Duration
		FirstOfTerm bool
		Renew       []string // session ids
		ClientSeen  []string // client sessions used since the last tick
	}
	// UpdateSettings replaces the settings.
	UpdateSettings struct{ Settings Settings }

	// OpenSession opens an agent's session, or says that it is resumed.
	OpenSession struct {
		Session                         string // fresh id, used if a session is opened
		Resume                          string // the session the agent believes it holds
		Agent                           string
		Group                           string
		Drivers                         []string
		Weight                          uint32
		Journal                         string // hex
		Incarnation                     uint64
		Version                         string
		Level                           uint32
		RamdiskURL, HTTPURL, RamdiskPin string
		Key                             [32]byte // SHA-256 of the public key in its certificate
	}
	// CloseSession ends a session at once.
	CloseSession struct{ Session, Reason string }
	// SetDrain starts or ends draining an agent.
	SetDrain struct {
		Agent string
		On    bool
	}
	// RemoveAgent ends the agent's session, forgets it and revokes its certificates.
	RemoveAgent struct{ Agent string }
	// MoveNodes hands resting nodes over (rebalance). Each move is checked again.
	MoveNodes struct{ Moves []Move }
	// HandoverAck says that the old owner tore down what it served for the node.
	HandoverAck struct {
		Node  node.ID
		Agent string
		Epoch uint64
	}

	// CreateNode inserts a node in state enroll with its ports. The node comes packed, as it will lie: nobody on its way needs
	// to open it. Of its head only what people set counts.
	CreateNode struct {
		Node  node.Packed
		Ports []node.Port
	}
	// UpdateNode changes the named fields; Version 0 means whatever the version. Fields are node proto paths.
	UpdateNode struct {
		Node    node.Node
		Fields  []string
		Version uint64
	}
	// DeleteNode removes a node and its ports.
	DeleteNode struct{ Node node.ID }
	// CreatePort adds a port.
	CreatePort struct{ Port node.Port }
	// UpdatePort changes the named fields of a port.
	UpdatePort struct {
		Port    node.Port
		Fields  []string
		Version uint64
	}
	// DeletePort removes a port.
	DeletePort struct{ Port string }
	// SetMaintenance sets or clears maintenance; it needs no lock.
	SetMaintenance struct {
		Node   node.ID
		On     bool
		Reason string
		Fault  string
	}
	// WaiveWipe records that the node may become available without a wipe.
	WaiveWipe struct {
		Node   node.ID
		Reason string
	}

	// Provision is a user's verb: it moves the state, opens the flow and grants the lock in one entry.
	Provision struct {
		Node       node.ID
		Verb       string // lifecycle.Verb text
		Instance   *node.Instance
		CleanSteps []CleanStep
	}
	// SetPower is a user's power verb.
	SetPower struct {
		Node   node.ID
		Target string // "power on", "power off", "rebooting", "soft power off", "soft rebooting"
	}
	// Outcome reports a step's end. It is matched by flow, step, attempt and boot id, never by token.
	Outcome struct {
		Node      node.ID
		Flow      flow.ID
		Step      int
		Attempt   uint32
		Token     lock.Token // under which it ran: recorded, not checked
		Boot      string
		OK        bool
		Error     string
		ErrorKind string
		Retryable bool
		Facts     map[string]string
		Inventory []byte
		Agent     string
	}
	// Edge reports what the rack saw happen to a machine.
	Edge struct {
		Node    node.ID
		Flow    flow.ID
		Boot    string
		Kind    string // first_contact, silent, heard, second_claim, unexpected_boot, wrong_machine
		KeyHash string
		Detail  string
		Agent   string
	}
	// PowerSeen reports what a node's owner saw of its power while nothing was ordered.
	PowerSeen struct {
		Node  node.ID
		Agent string
		Epoch uint64     // of the assignment under which it looked
		Power node.Power // PowerUnknown: it could not be read, time after time
		Error string     // why not
	}
	// Timeout closes an attempt whose deadline has passed; Apply checks it again.
	Timeout struct {
		Node     node.ID
		Flow     flow.ID
		Step     int
		Attempt  uint32
		Deadline time.Duration
	}
	// Resume takes an open flow on where nothing else will: an attempt waiting for maintenance, an owner or a
	// concurrency limit. Apply checks that it is due.
	Resume struct {
		Node node.ID
		Flow flow.ID
	}

	// AcquireLock grants the lock for work that is not a flow.
	AcquireLock struct {
		Node    node.ID
		Session string // an agent's, or a client session
		Holder  string
		Task    string
		Purpose string
	}
	// ReleaseLock frees the lock if the token is the one that holds it.
	ReleaseLock struct {
		Node  node.ID
		Token lock.Token
	}
	// BreakLock takes the lock from its holder; work behind it is granted anew.
	BreakLock struct {
		Node   node.ID
		Token  lock.Token // 0: whatever it is
		Reason string
	}

	// PutMember records where a coordinator answers.
	PutMember struct{ Member Member }
	// RemoveMember forgets a coordinator, and revokes its certificates.
	RemoveMember struct {
		ID      string
		Rejoins bool // it removes itself, to be recorded anew: its certificate stays
	}
	// CreateJoinToken stores the hash of a one-use token.
	CreateJoinToken struct {
		ID, Role, Name, Group string
		Hash                  [32]byte
		TTL                   time.Duration // of elapsed
	}
	// UseJoinToken consumes a token; it succeeds for one key, the SHA-256 of the joiner's public key.
	UseJoinToken struct {
		ID        string
		Hash, Key [32]byte
		Role      string
		TTL       time.Duration // the life of the certificate that is made for it
	}
	// RaiseLevel raises the cluster's feature level.
	RaiseLevel struct{ Level uint32 }
	// RenewCertificate says that a key is certified anew.
	RenewCertificate struct {
		Key [32]byte
		TTL time.Duration // the certificate's life
	}
	// RevokeCertificates takes all certificates of a role and name back. An operator's join tokens go with them.
	RevokeCertificates struct{ Role, Name, Reason string }
	// RecoverRoster is for a lost cluster that is made anew: its coordinators' certificates are revoked, its join tokens are
	// over, and what is issued is added.
	RecoverRoster struct{ Issued []Issued }
	// NewGeneration is proposed once after a restore or a recovery: all sessions end, tokens rise above all before.
	NewGeneration struct {
		Reason string
		Skip   uint32 // generations left out below the new one: a cluster that was lost may have used them
	}
	// RecordBMCSession says that an agent opened a session at a node's BMC, or that one is over. An opened one is
	// taken from the node's owner only: whoever owns the node next ends it before its first effect.
	RecordBMCSession struct {
		Node    node.ID
		Session string // the agent's session
		Agent   string
		URI     string // path at the BMC; no secret
		Opened  bool   // false: it is over
	}
	// Batch applies commands of one actor in order, under one header. Each has its own result.
	Batch struct{ Commands []Body }
)

// CleanStep is one step of a manual clean.
type CleanStep struct {
	Interface, Step string
	Args            map[string]string
}

// Issued is a certificate that was made on a coordinator's host, without a join token.
type Issued struct {
	Key               [32]byte // SHA-256 of the public key
	Role, Name, Group string
	TTL               time.Duration
}

// Move is one handover of a rebalance.
type Move struct {
	Node     node.ID
	From, To string
}

// Member is a coordinator as others reach it.
type Member struct {
	ID, RaftAddress, APIAddress, RackAddress, Version string
	Level                                             uint32
}

// Settings are the replicated timeouts and limits; see DefaultSettings.
type Settings struct {
	SessionTTL, DeployTimeout, CleanTimeout, InspectTimeout time.Duration
	BootTTL, RamdiskSilence, RamdiskHeartbeat               time.Duration
	BMCChangeDeadline, StepDeadline                         time.Duration
	StepTries, BootTries                                    uint32
	AutomatedClean                                          bool
	MaxDeploy, MaxClean                                     uint32
	Erase                                                   string // auto, discard, overwrite, metadata
}

// DefaultSettings are the defaults of a new cluster.
func DefaultSettings() Settings {
	return Settings{
		SessionTTL: 2 * time.Second, DeployTimeout: 1800 * time.Second, CleanTimeout: 1800 * time.Second,
		InspectTimeout: 1800 * time.Second, BootTTL: 1800 * time.Second, RamdiskSilence: 60 * time.Second,
		RamdiskHeartbeat: 10 * time.Second, BMCChangeDeadline: 10 * time.Second, StepDeadline: 30 * time.Second,
		StepTries: 3, BootTries: 3, AutomatedClean: true, MaxDeploy: 250, MaxClean: 50, Erase: "auto",
	}
}

// Result is what Apply answers. Ids and indexes, never objects or secrets: it is kept for repeats.
type Result struct {
	Index   uint64
	Node    node.ID
	Flow    flow.ID
	Token   lock.Token
	Session string
	Version uint64
	Count   uint64
	Flags   uint32   // see the flags below
	Results []Result // of a Batch
	Err     error    // *fault.Error; the command changed nothing
}

// Flags of a Result.
const (
	FlagLate    = 1 << iota // the report named a closed attempt: recorded, nothing changed
	FlagResumed             // OpenSession kept the session
	FlagRepeat              // the stored answer to a repeated request
)

func (InitCluster) body()        {}
func (Tick) body()               {}
func (UpdateSettings) body()     {}
func (OpenSession) body()        {}
func (CloseSession) body()       {}
func (SetDrain) body()           {}
func (RemoveAgent) body()        {}
func (MoveNodes) body()          {}
func (HandoverAck) body()        {}
func (CreateNode) body()         {}
func (UpdateNode) body()         {}
func (DeleteNode) body()         {}
func (CreatePort) body()         {}
func (UpdatePort) body()         {}
func (DeletePort) body()         {}
func (SetMaintenance) body()     {}
func (WaiveWipe) body()          {}
func (Provision) body()          {}
func (SetPower) body()           {}
func (Outcome) body()            {}
func (Edge) body()               {}
func (PowerSeen) body()          {}
func (Timeout) body()            {}
func (Resume) body()             {}
func (AcquireLock) body()        {}
func (ReleaseLock) body()        {}
func (BreakLock) body()          {}
func (PutMember) body()          {}
func (RemoveMember) body()       {}
func (CreateJoinToken) body()    {}
func (UseJoinToken) body()       {}
func (RaiseLevel) body()         {}
func (NewGeneration) body()      {}
func (RecordBMCSession) body()   {}
func (RenewCertificate) body()   {}
func (RevokeCertificates) body() {}
func (RecoverRoster) body()      {}
func (Batch) body()              {}
