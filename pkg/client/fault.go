package client

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Fault is err as the typed error that the server meant, or the nearest kind when it sent no details. It is nil for
// nil.
func Fault(err error) *fault.Error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return late(err)
		case errors.Is(err, context.Canceled):
			return &fault.Error{Kind: fault.Aborted, Err: err}
		}
		return &fault.Error{Kind: fault.Internal, Err: err}
	}
	if len(ce.Details()) == 0 && ce.Code() == connect.CodeDeadlineExceeded {
		return late(context.DeadlineExceeded)
	}
	for _, d := range ce.Details() {
		msg, derr := d.Value()
		if detail, ok := msg.(*farrierv1.ErrorDetail); derr == nil && ok {
			return fromDetail(detail)
		}
	}
	return fromCode(ce)
}

// FromDetail is the error that a detail describes; bulk calls carry details in their results.
func FromDetail(d *farrierv1.ErrorDetail) *fault.Error {
	if d == nil {
		return nil
	}
	return fromDetail(d)
}

func fromDetail(d *farrierv1.ErrorDetail) *fault.Error {
	f := &fault.Error{Kind: fault.ParseKind(d.GetKind()), Err: errors.New(d.GetMessage()), Help: d.GetHelp()}
	switch {
	case d.GetLock() != nil:
		l := d.GetLock()
		f.Detail = &fault.LockDetail{Node: l.GetNode(), Holder: l.GetHolder(), Session: l.GetSession(), Task: l.GetTask(),
			Purpose: l.GetPurpose(), Token: l.GetToken(), SinceUnixNano: l.GetSince().AsTime().UnixNano(), Queued: l.GetQueued()}
	case len(d.GetLegalVerbs()) > 0:
		f.Detail = &fault.StateDetail{LegalVerbs: d.GetLegalVerbs()}
	case d.GetLeader() != "":
		f.Detail = &fault.LeaderDetail{Address: d.GetLeader()}
	case d.GetField() != "":
		f.Detail = &fault.FieldDetail{Field: d.GetField()}
	}
	return f
}

// late is the error of a call whose time is up; why is what is known of the reason.
func late(why error) *fault.Error {
	help := "look before you repeat a change: it may have been made; give a longer --timeout, and see whether the coordinators run: farrier coordinator members"
	var ce *connect.Error
	if errors.As(why, &ce) {
		f := Fault(why) // its text without the wire's
		if why = f; f.Help != "" {
			help = f.Help + "; " + help
		}
	}
	return fault.New(fault.Timeout, "", "the coordinators did not answer in time: %w", why).WithHelp("%s", help)
}

func fromCode(ce *connect.Error) *fault.Error {
	kinds := map[connect.Code]fault.Kind{
		connect.CodeCanceled: fault.Aborted, connect.CodeInvalidArgument: fault.Invalid, connect.CodeDeadlineExceeded: fault.Timeout,
		connect.CodeNotFound: fault.NotFound, connect.CodeAlreadyExists: fault.Exists, connect.CodePermissionDenied: fault.Denied,
		connect.CodeResourceExhausted: fault.TooLarge, connect.CodeFailedPrecondition: fault.IllegalState, connect.CodeAborted: fault.VersionConflict,
		connect.CodeUnimplemented: fault.Unsupported, connect.CodeUnavailable: fault.Unavailable, connect.CodeUnauthenticated: fault.Unauthenticated,
	}
	f := &fault.Error{Kind: kinds[ce.Code()], Err: errors.New(ce.Message())}
	if f.Kind == fault.Unavailable {
		f.Help = "check that a majority of the coordinators run and that their addresses are right: farrier coordinator members"
	}
	return f
}
