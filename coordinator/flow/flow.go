package flow

import (
	"time"

	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/pkg/step"
)

// ID names a flow. Ids come from a replicated counter and are never reused.
type ID uint64

// Kind is what the flow is for.
type Kind uint8

// The kinds.
const (
	_ Kind = iota
	Verify
	Inspect
	Clean // automated or manual
	Deploy
	Rebuild
	Undeploy // ends in an automated Clean flow
	Power
)

// Status is where a flow or a step stands.
type Status uint8

// The statuses. A flow is Running, Done, Failed or Aborted; a step can be any of them.
const (
	Pending Status = iota
	Running
	Done
	Failed
	Aborted
	Skipped
)

// Flow is the durable plan of one piece of work on a node. Records are immutable: see Clone.
type Flow struct {
	ID     ID
	Node   string // node.ID
	Kind   Kind
	Verb   string // as the user asked: "active", "provide", "power off", ...
	Status Status
	Steps  []Step // phase one is fixed at opening, phase two at first contact
	Cur    int    // the step in work
	Phase  uint8  // 1 or 2; 0 while it waits for a concurrency limit
	Manual bool   // a manual clean ends in manageable

	Boot  Boot   // the open boot attempt; zero when none
	Boots uint32 // boot attempts made

	AbortRequested bool
	AbortBy        string
	DeleteAfter    bool // the abort was a deleted verb: undeploy follows
	Error          string
	Facts          map[string]string // what steps found: disk_id, digest, ...
	Actor          string

	StartedAt, EndedAt time.Time // for people
}

// Step is the smallest resumable unit.
type Step struct {
	Interface, Name string
	Class           step.Class
	Executor        step.Executor
	Abortable       bool
	Args            map[string]string
	SecretArgs      []string // names of the instance's sealed fields to unseal for the executor: user_data, network_data

	Cleanup bool // best effort after a failure: its own failure is skipped

	Status  Status
	Tries   uint32  // attempts since the step was last pending
	Attempt Attempt // the open or last one
	Error   string
	Facts   map[string]string

	StartedAt, EndedAt time.Time // for people
}

// Attempt is one try of a step. While it is open, a report that names it is accepted, whatever the token.
type Attempt struct {
	N            uint32
	Open         bool
	Token        lock.Token
	Deadline     time.Duration // elapsed; 0: none
	NotBefore    time.Duration // elapsed: the pause before a repeat, or an earlier owner's changing BMC call may still be on its way
	CallDeadline time.Duration // of each changing BMC call: goes with every order, and is how long such a call may be on its way
	Resumed      bool          // an earlier owner may have run part of it
	Boot         string        // boot id of a ramdisk step
}

// Boot is one authorised start of the ramdisk.
type Boot struct {
	ID       string        // 128 bit, hex; the secret is derived from it by the leader
	Expires  time.Duration // elapsed
	KeyHash  string        // hex SHA-256 of the ramdisk's public key once it made contact
	Contact  bool
	SilentAt time.Duration // elapsed at which the agent said it fell silent; 0 when it is heard
}

// Clone is a copy to change and put back; Steps is copied, maps must be replaced, not written.
func (f *Flow) Clone() *Flow {
	c := *f
	c.Steps = append([]Step(nil), f.Steps...)
	return &c
}
