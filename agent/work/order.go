package work

import (
	"time"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/step"
)

// Ref is the identity of an attempt.
type Ref struct {
	Node    string // UUID
	Flow    uint64
	Step    uint32
	Attempt uint32
}

// Order asks for one attempt of one step. Maps and slices in it are never written.
type Order struct {
	Ref
	Token        uint64
	Interface    string // "power"
	Name         string // "power_off"
	Class        step.Class
	Executor     step.Executor
	Args         map[string]string
	SecretArgs   []byte        // JSON object of strings; never logged, never in the journal
	Deadline     time.Duration // of the attempt, from receipt; 0: none
	CallDeadline time.Duration // of one changing BMC call; 0: the executor's default
	BootID       string        // of a ramdisk step, and of boot.*
	Resumed      bool          // an earlier run may have done part of it: read the world first
}

// Full is the step's full name, "power.power_off".
func (o Order) Full() string { return o.Interface + "." + o.Name }

// Outcome is how an attempt ended. It is a fact: it is reported whatever became of the token.
type Outcome struct {
	Ref
	Token     uint64 // under which it ran
	BootID    string
	OK        bool
	Error     string // the cause and the advice, for last_error
	Kind      fault.Kind
	Retryable bool
	Facts     map[string]string
	Inventory []byte // compressed JSON, at most 128 KiB
}

// Done is a successful outcome of o with facts.
func Done(o Order, facts map[string]string) Outcome {
	return Outcome{Ref: o.Ref, Token: o.Token, BootID: o.BootID, OK: true, Facts: facts}
}

// Failed is the outcome of o for err. Errors of the way (unreachable, too late, busy, answer lost) are worth
// another attempt; errors of the request are not.
func Failed(o Order, err error) Outcome {
	kind := fault.KindOf(err)
	return Outcome{Ref: o.Ref, Token: o.Token, BootID: o.BootID, Error: fault.Summary(err), Kind: kind, Retryable: Retryable(kind)}
}

// Retryable tells whether another attempt may fare better.
func Retryable(k fault.Kind) bool {
	switch k {
	case fault.Unavailable, fault.Timeout, fault.Busy, fault.UnknownOutcome, fault.NoQuorum, fault.NotLeader:
		return true
	default:
		return false
	}
}

// Record is what the journal remembers of a node: the last attempt and the highest token.
type Record struct {
	Ref
	Token     uint64 // highest seen for the node
	RanUnder  uint64 // token of the run
	Intents   uint32 // effects begun
	Outcome   *Outcome
	Confirmed bool
}

// is tells whether the record is of this very attempt. After a restore or recovery of the coordinators flow
// numbers may come again; the generation, in the high 16 bits of a token, tells the flows apart.
func (r *Record) is(o Order) bool {
	return r != nil && r.Ref == o.Ref && r.RanUnder>>generationShift == o.Token>>generationShift
}

// generationShift parts a token: above are the 16 bits of the coordinators' generation, below a counter.
const generationShift = 48

// answers tells whether the record holds the outcome of this very attempt.
func (r *Record) answers(o Order) bool {
	return r.is(o) && r.Outcome != nil && r.Outcome.BootID == o.BootID
}

// reported tells whether the record holds an outcome that a ramdisk now says again.
func (r *Record) reported(o Outcome) bool {
	return r != nil && r.Ref == o.Ref && r.Outcome != nil && r.Outcome.BootID == o.BootID
}
