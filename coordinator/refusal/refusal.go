package refusal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Code is the wire code of a kind. It is the only such mapping; a program that needs more reads
// ErrorDetail.kind, which says it exactly.
func Code(k fault.Kind) connect.Code {
	switch k {
	case fault.Invalid:
		return connect.CodeInvalidArgument
	case fault.NotFound:
		return connect.CodeNotFound
	case fault.Exists:
		return connect.CodeAlreadyExists
	case fault.Locked, fault.VersionConflict, fault.StaleToken, fault.Aborted:
		return connect.CodeAborted
	case fault.IllegalState, fault.NoAgent, fault.Version, fault.Expired, fault.Ambiguous, fault.NoMatch:
		return connect.CodeFailedPrecondition
	case fault.Busy, fault.TooLarge:
		return connect.CodeResourceExhausted
	case fault.NotLeader, fault.NoQuorum, fault.Unavailable:
		return connect.CodeUnavailable
	case fault.Timeout:
		return connect.CodeDeadlineExceeded
	case fault.Unauthenticated:
		return connect.CodeUnauthenticated
	case fault.Denied:
		return connect.CodePermissionDenied
	case fault.UnknownOutcome:
		return connect.CodeUnknown
	case fault.Corrupt:
		return connect.CodeDataLoss
	case fault.Unsupported:
		return connect.CodeUnimplemented
	case fault.Compacted:
		return connect.CodeOutOfRange
	default:
		return connect.CodeInternal // the cause is logged, not sent
	}
}

// Detail is the error as programs read it. An internal error's cause is not in it.
func Detail(err error) *farrierv1.ErrorDetail {
	d := &farrierv1.ErrorDetail{Kind: fault.KindOf(err).String(), Message: err.Error()}
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind == fault.Internal {
		d.Message = "internal error"
		d.Help = "the coordinator's log has the cause; this is a defect"
		return d
	}
	d.Help = help(e)
	switch x := e.Detail.(type) {
	case *fault.LockDetail:
		d.Lock = lockOfDetail(x)
	case *fault.StateDetail:
		d.LegalVerbs = x.LegalVerbs
	case *fault.LeaderDetail:
		d.Leader = x.Address
	case *fault.FieldDetail:
		d.Field = x.Field
	}
	return d
}

func lockOfDetail(x *fault.LockDetail) *farrierv1.Lock {
	l := &farrierv1.Lock{Node: x.Node, Holder: x.Holder, Session: x.Session, Task: x.Task, Purpose: x.Purpose,
		Token: x.Token, Queued: x.Queued}
	if x.SinceUnixNano != 0 {
		l.Since = timestamppb.New(time.Unix(0, x.SinceUnixNano))
	}
	return l
}

// NeedMajority is the advice when nobody leads.
const NeedMajority = "more than half of the coordinators must run and reach each other; `farrier coordinator members` shows who is missing"

// help is the error's own advice, or what is true of every error of its kind.
func help(e *fault.Error) string {
	if e.Help != "" {
		return e.Help
	}
	switch e.Kind {
	case fault.Locked:
		return "wait for the task to end, or give a longer wait; `farrier lock list` shows the holders, `farrier lock break NODE` takes the lock from one"
	case fault.VersionConflict:
		return "somebody else changed it: read it again and repeat the change with the new version"
	case fault.NoAgent:
		return "start an agent of the node's group that has its hardware type; `farrier agent list` shows who is there"
	case fault.NotLeader:
		return "send the request again: the cluster is choosing a leader"
	case fault.NoQuorum:
		return NeedMajority
	case fault.UnknownOutcome:
		return "the change may or may not have been made: read before you try again, or repeat it with the same request id"
	case fault.Busy:
		return "try again in a moment"
	case fault.Compacted:
		return "list what you follow, and watch from the floor"
	case fault.Unauthenticated:
		return "give the directory of a certificate that this cluster issued"
	case fault.Version:
		return "upgrade the coordinators first, then the agents"
	default:
		return ""
	}
}

// Connect is err as Connect sends it. An error that already is a Connect error (a body that did not parse)
// keeps its code and gets a detail.
func Connect(err error) *connect.Error {
	var ce *connect.Error
	if errors.As(err, &ce) {
		return withDetail(ce, ofConnect(ce))
	}
	switch {
	case CallerLeft(err):
		return connect.NewError(connect.CodeCanceled, errors.New("the caller left"))
	case fault.KindOf(err) == fault.Timeout && !fault.Is(err, fault.Timeout):
		err = fault.New(fault.Timeout, "", "the caller's deadline passed")
	}
	d := Detail(err)
	return withDetail(connect.NewError(Code(fault.KindOf(err)), errors.New(d.GetMessage())), d)
}

// CallerLeft tells whether err says only that nobody waits for the answer any more, in whatever words.
func CallerLeft(err error) bool {
	return fault.KindOf(err) == fault.Internal && errors.Is(err, context.Canceled)
}

func withDetail(ce *connect.Error, d *farrierv1.ErrorDetail) *connect.Error {
	if len(ce.Details()) > 0 {
		return ce
	}
	if detail, err := connect.NewErrorDetail(d); err == nil {
		ce.AddDetail(detail)
	}
	return ce
}

// ofConnect names what Connect itself refuses: a body that does not parse, or that is too large.
func ofConnect(ce *connect.Error) *farrierv1.ErrorDetail {
	kind := fault.Internal
	switch ce.Code() {
	case connect.CodeInvalidArgument:
		kind = fault.Invalid
	case connect.CodeResourceExhausted:
		kind = fault.TooLarge
	case connect.CodeUnimplemented:
		kind = fault.Unsupported
	case connect.CodeDeadlineExceeded:
		kind = fault.Timeout
	}
	return &farrierv1.ErrorDetail{Kind: kind.String(), Message: ce.Message()}
}

// Invalid is a fault.Invalid of one field of the request.
func Invalid(field, format string, args ...any) *fault.Error {
	return &fault.Error{Kind: fault.Invalid, Op: field, Err: fmt.Errorf(format, args...), Detail: &fault.FieldDetail{Field: field}}
}

// Clip bounds what an error repeats of a request.
func Clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
