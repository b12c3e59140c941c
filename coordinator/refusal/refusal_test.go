package refusal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestEveryKindHasACode(t *testing.T) {
	for k := fault.Internal + 1; !strings.HasPrefix(k.String(), "kind("); k++ {
		if Code(k) == connect.CodeInternal {
			t.Errorf("%s has no code of its own", k)
		}
		ce := Connect(fault.New(k, "op", "why"))
		if d := detailOf(t, ce); d.GetKind() != k.String() || d.GetMessage() != "op: why" {
			t.Errorf("%s: detail %v", k, d)
		}
	}
}

func TestInternalCausesStayInside(t *testing.T) {
	for _, err := range []error{errors.New("secret path"), fault.New(fault.Internal, "open", "secret path"), fmt.Errorf("x: %w", fault.New(fault.Internal, "", "secret path"))} {
		ce := Connect(err)
		if ce.Code() != connect.CodeInternal || strings.Contains(ce.Error(), "secret") || strings.Contains(detailOf(t, ce).String(), "secret") {
			t.Errorf("%v becomes %v", err, ce)
		}
	}
}

func TestDetails(t *testing.T) {
	lock := fault.New(fault.Locked, "set power", "held").WithDetail(&fault.LockDetail{Node: "n", Holder: "agent a", Purpose: "deploy", Token: 9, SinceUnixNano: 1e18, Queued: 3})
	d := Detail(fault.Wrap("outer", lock))
	if l := d.GetLock(); l.GetHolder() != "agent a" || l.GetPurpose() != "deploy" || l.GetToken() != 9 || l.GetQueued() != 3 || l.GetSince() == nil {
		t.Errorf("lock detail %v", l)
	}
	if d.GetHelp() == "" {
		t.Error("no advice for a held lock")
	}
	if d := Detail(fault.New(fault.IllegalState, "", "x").WithDetail(&fault.StateDetail{LegalVerbs: []string{"manage"}})); len(d.GetLegalVerbs()) != 1 {
		t.Errorf("legal verbs %v", d)
	}
	if d := Detail(Invalid("node.name", "x")); d.GetField() != "node.name" {
		t.Errorf("field %v", d)
	}
	if d := Detail(fault.New(fault.NotLeader, "", "x").WithDetail(&fault.LeaderDetail{Address: "h:1"})); d.GetLeader() != "h:1" {
		t.Errorf("leader %v", d)
	}
}

func TestContextErrors(t *testing.T) {
	if got := Connect(fmt.Errorf("x: %w", context.DeadlineExceeded)); got.Code() != connect.CodeDeadlineExceeded || detailOf(t, got).GetKind() != "timeout" {
		t.Errorf("deadline: %v", got)
	}
	for _, err := range []error{context.Canceled, fault.Wrap("read", context.Canceled)} {
		if got := Connect(err); got.Code() != connect.CodeCanceled {
			t.Errorf("canceled: %v", got)
		}
	}
}

// detailOf reads the typed detail, which every error must have.
func detailOf(t *testing.T, ce *connect.Error) *farrierv1.ErrorDetail {
	t.Helper()
	for _, d := range ce.Details() {
		if v, err := d.Value(); err == nil {
			if x, ok := v.(*farrierv1.ErrorDetail); ok {
				return x
			}
		}
	}
	t.Fatalf("no detail in %v", ce)
	return nil
}
