package state

import (
	"strings"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
)

// The records that only state keeps. Their shapes are in command, beside the codec of the snapshot.
type (
	// Session is an agent's membership.
	Session = command.Session
	// Agent is a rack agent that has registered, live or not.
	Agent = command.Agent
	// Ring is one group × hardware type and its epoch, which rises with each membership change.
	Ring = command.Ring
	// JoinToken is the hash of a one-use token.
	JoinToken = command.JoinToken
	// Certificate is a key that the cluster's CA has certified.
	Certificate = command.Certificate
	// Client is a client session: what deduplicates requests.
	Client = command.Client
	// Answer is the stored result of one request of a client session.
	Answer = command.Answer
	// Alarm is a condition for operators.
	Alarm = command.Alarm
	// Inventory is what the ramdisk found, compressed by the agent.
	Inventory = command.Inventory
	// BMCSessions is the sessions that may be open at a node's BMC.
	BMCSessions = command.BMCSessions
)

// Cluster is what is common to all members.
type Cluster struct {
	ID         string
	Generation uint16 // of tokens: rises with each restore
	Level      uint32 // feature level
	CACert     []byte // DER
	CAKey      node.Sealed
	Tokens     uint64 // lock tokens granted in this cluster's life
}

// Root holds what is not a table. It is copied before each command, for undo.
type Root struct {
	Elapsed  time.Duration // replicated time
	Cluster  Cluster
	Settings command.Settings
	LastFlow uint64 // flow ids given out

	index   uint64
	ordinal uint32 // events at index so far
	alarms  uint64 // alarm ids given out
	evicted Position
}

// Limits of what is kept. Each bounds memory or the work of one entry.
const (
	MaxEvents         = 50000                     // kept for Watch
	MaxAlarms         = 100                       // the newest are kept
	MaxClients        = 65536                     // client sessions, ended ones included
	MaxAnswers        = 64                        // per client session
	MaxAnswerSize     = 1 << 10                   // bytes
	MaxJoinTokens     = 1024                      // unused, or used lately
	MaxCertificates   = 16384                     // in the roster
	MaxReason         = 255                       // bytes of why a certificate was revoked
	MaxPortsPerNode   = 64                        //
	MaxAgents         = 4096                      // registered
	MaxNameLen        = 255                       // bytes of a name
	MaxNodeSize       = 64 << 10                  // bytes of a node's free-form fields
	MaxFacts          = 64                        // facts in one outcome
	MaxFactBytes      = 8 << 10                   // bytes of all facts of one outcome
	MaxInventory      = 128 << 10                 // bytes, compressed
	MaxBMCSessions    = 8                         // recorded per node; the oldest goes
	MaxBMCURI         = 512                       // bytes of one session's URI
	MaxWritten        = 64                        // disks written to since the last wipe
	MaxTick           = time.Second               // of one Tick
	ClientIdle        = 15 * time.Minute          // of elapsed, until a client session ends
	ClientForget      = 24 * time.Hour            // of elapsed, until an ended client session is forgotten
	JoinTokenTTLMax   = 24 * time.Hour            // of elapsed
	CertificateTTL    = 30 * 24 * time.Hour       // of a certificate of which only that it was issued is known
	MaxCertificateTTL = 20 * 365 * 24 * time.Hour // as long as the CA's own
	JoinAgain         = 5 * time.Minute           // of elapsed, in which who used a token may use it again: its join was cut
)

// Clip bounds a text that comes from outside.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
