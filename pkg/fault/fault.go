package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Kind classifies an error for programs. The zero Kind is Internal's: an error without a kind is a bug.
type Kind uint8

// The kinds. Their text is part of the API (ErrorDetail.kind) and never changes.
const (
	Internal        Kind = iota // a bug or a broken invariant
	Invalid                     // the request can never succeed as it is
	NotFound                    // what it names does not exist
	Exists                      // the name, MAC or id is taken
	Locked                      // another task holds the node
	IllegalState                // the verb or change is illegal in the node's state
	VersionConflict             // compare-and-set failed: read again
	Busy                        // a limit is reached: free worker, queue, rate
	NoAgent                     // no live agent of the group has the hardware type
	NotLeader                   // another coordinator leads: go there
	NoQuorum                    // too few coordinators answer
	Unavailable                 // a peer cannot be reached
	Timeout                     // a deadline passed
	StaleToken                  // the fencing token is older than one seen
	Unauthenticated             // no valid certificate, token or password
	Denied                      // the role may not do this
	TooLarge                    // a body, packet or image over its bound
	UnknownOutcome              // the answer was lost: read before trying again
	Corrupt                     // stored or transferred bytes fail their checksum
	Unsupported                 // the peer or driver cannot do this
	Aborted                     // cancelled by an operator
	Version                     // the peer speaks a newer level
	Expired                     // a join token, boot attempt or session is over
	Compacted                   // the position asked for is below the floor
	Ambiguous                   // more than one thing matches where one is needed
	NoMatch                     // nothing matches where one is needed (disk hints)
	endOfKinds
)

var kindText = [...]string{ // read-only
	Internal: "internal", Invalid: "invalid", NotFound: "not_found", Exists: "exists", Locked: "locked",
	IllegalState: "illegal_state", VersionConflict: "version_conflict", Busy: "busy", NoAgent: "no_agent",
	NotLeader: "not_leader", NoQuorum: "no_quorum", Unavailable: "unavailable", Timeout: "timeout",
	StaleToken: "stale_token", Unauthenticated: "unauthenticated", Denied: "denied", TooLarge: "too_large",
	UnknownOutcome: "unknown_outcome", Corrupt: "corrupt", Unsupported: "unsupported", Aborted: "aborted",
	Version: "version", Expired: "expired", Compacted: "compacted", Ambiguous: "ambiguous", NoMatch: "no_match",
}

// String is the kind's text on the wire.
func (k Kind) String() string {
	if int(k) < len(kindText) {
		return kindText[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind reads a kind's text; unknown text is Internal.
func ParseKind(text string) Kind {
	for k := range endOfKinds {
		if kindText[k] == text {
			return k
		}
	}
	return Internal
}

// Error is a failure with its kind. Op and Err make the message; Help says what to do next.
type Error struct {
	Kind   Kind
	Op     string // what was being done: "acquire lock"
	Err    error
	Help   string // for people: a command to run, a thing to change
	Detail any    // for programs: *LockDetail, *StateDetail, *LeaderDetail, *FieldDetail
}

// LockDetail describes the lock that was in the way.
type LockDetail struct {
	Node, Holder, Session, Task, Purpose string
	Token                                uint64
	SinceUnixNano                        int64 // by the granting leader's wall clock
	Queued                               uint32
}

// StateDetail lists what would have been legal.
type StateDetail struct {
	State      string
	LegalVerbs []string
}

// LeaderDetail says who leads; empty when nobody is known to.
type LeaderDetail struct{ Address string }

// FieldDetail names the field of the request that is wrong.
type FieldDetail struct{ Field string }

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
	}
	if e.Err != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	if b.Len() == 0 {
		return e.Kind.String()
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind with a formatted message; %w wraps.
func New(kind Kind, op, format string, args ...any) *Error {
	return &Error{Kind: kind, Op: op, Err: fmt.Errorf(format, args...)}
}

// WithHelp returns e with advice for the reader.
func (e *Error) WithHelp(format string, args ...any) *Error {
	c := *e
	c.Help = fmt.Sprintf(format, args...)
	return &c
}

// WithDetail returns e with a detail for programs.
func (e *Error) WithDetail(d any) *Error {
	c := *e
	c.Detail = d
	return &c
}

// Summary is err in one line, for a record that keeps text only: what happened, the kind, and the advice.
func Summary(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	text := fmt.Sprintf("%v (%v)", err, e.Kind)
	if e.Help != "" {
		text += "; " + e.Help
	}
	return text
}

// KindOf is the kind of the outermost *Error in err's chain. Without one it is Timeout for a context's deadline, else
// Internal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	default:
		return Internal
	}
}

// Is tells whether err carries the kind. It is false for nil.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

// Wrap adds what was being done, unless err says that already, and keeps kind, help and detail. It returns nil for nil.
func Wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if err == error(e) && e.Op == op {
			return err
		}
		return &Error{Kind: e.Kind, Op: op, Err: err, Help: e.Help, Detail: e.Detail}
	}
	return &Error{Kind: KindOf(err), Op: op, Err: err}
}
