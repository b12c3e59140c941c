package command

import (
	"slices"
	"time"

	"github.com/farrier-project/farrier/coordinator/node"
)

// The records below are kept by state and written to snapshots; they are never in a log entry. Records are
// immutable once stored.
type (
	// Session is an agent's membership: opened, renewed by ticks, ended.
	Session struct {
		ID          string
		Agent       string // "" of a client session
		Actor       string // of a client session
		Journal     string // hex
		Incarnation uint64
		Deadline    time.Duration // elapsed
		TTL         time.Duration // what each renewal gives: settled when the session opens, for its holder counts with it
		Client      bool          // a view of a Client; such sessions are in another table
	}
	// Agent is a rack agent that has registered. Session is "" while it is away.
	Agent struct {
		Name, Group string
		Drivers     []string // hardware types, sorted
		Weight      uint32
		Session     string
		Journal     string // of the newest session
		Incarnation uint64
		Draining    bool
		Version     string
		Level       uint32

		RamdiskURL, HTTPURL, RamdiskPin string

		RegisteredAt time.Time     // for people
		EndedAt      time.Duration // elapsed at which the newest session ended
		Alarm        string
		Removed      bool // by an operator: it must join again
	}
	// Ring is one group × hardware type.
	Ring struct {
		Group, Driver string
		Epoch         uint64
	}
	// JoinToken is a one-use token's hash.
	JoinToken struct {
		ID, Role, Name, Group string
		Hash                  [32]byte
		Expires               time.Duration // elapsed
		UsedBy                [32]byte      // the SHA-256 of the public key that joined with it; zero: unused
		By                    string        // who made it
	}
	// Certificate is a key that the cluster's CA has certified: once, or again and again for the same holder.
	Certificate struct {
		Key               [32]byte // SHA-256 of the public key
		Role, Name, Group string
		InvitedBy         string        // who made the join token
		JoinedAt          time.Time     // for people
		RenewedAt         time.Time     // for people; zero: never
		Ends              time.Duration // elapsed: no certificate of the key is good after it
		RevokedBy         string        // "": it is believed
		RevokedAt         time.Time     // for people
		Reason            string        // of the revocation
	}
	// Client is a client session. An ended one keeps High, so that no old request runs twice.
	Client struct {
		ID     string
		Actor  string
		Floor  uint64 // answers at or below it may be gone
		High   uint64 // the highest sequence seen
		Count  uint32 // answers stored
		UsedAt time.Duration
		Ended  bool
	}
	// Answer is a stored result.
	Answer struct {
		Client string
		Seq    uint64
		Digest [16]byte
		Gone   bool // the result was too large to keep
		Result Result
	}
	// Alarm is a condition for operators.
	Alarm struct {
		ID    uint64
		Index uint64
		At    time.Time
		Text  string
	}
	// Inventory is what inspection found on a node.
	Inventory struct {
		Node node.ID
		At   time.Time
		Data []byte
	}
	// BMCSessions is the sessions that agents opened at a node's BMC and that may still be open, oldest first.
	BMCSessions struct {
		Node     node.ID
		Sessions []BMCSession
	}
	// BMCSession is one of them.
	BMCSession struct {
		URI     string // path at the BMC
		Agent   string
		Session string // the agent's
	}
	// Event is a stored event; fields are pairs in a fixed order.
	Event struct {
		Index    uint64
		Ordinal  uint32
		Type     string
		Node     node.ID
		NodeName string
		At       time.Time
		Actor    string
		Fields   []Field
	}
	// Field is one fact of an event.
	Field struct{ Key, Value string }
	// Root is what is not a table.
	Root struct {
		Index                 uint64
		Ordinal               uint32
		Elapsed               time.Duration
		ClusterID             string
		Generation            uint16
		Level                 uint32
		CACert                []byte
		CAKey                 node.Sealed
		Tokens, Flows, Alarms uint64
		Settings              Settings
		FloorIndex            uint64 // position of the newest event that is gone
		FloorOrdinal          uint32
	}
	// SnapshotEnd closes a snapshot.
	SnapshotEnd struct {
		Records uint64 // before this one
		Hash    [16]byte
	}
)

// HasDriver tells whether the agent offers a hardware type.
func (a *Agent) HasDriver(driver string) bool { return slices.Contains(a.Drivers, driver) }
