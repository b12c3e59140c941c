package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

func statePosition(index uint64) state.Position { return state.Position{Index: index} }

func TestEveryKindHasACode(t *testing.T) {
	for k := fault.Internal + 1; !strings.HasPrefix(k.String(), "kind("); k++ {
		if Code(k) == connect.CodeInternal {
			t.Errorf("%s has no code of its own", k)
		}
		ce := ToConnect(fault.New(k, "op", "why"))
		if d := detailOf(t, ce); d.GetKind() != k.String() || d.GetMessage() != "op: why" {
			t.Errorf("%s: detail %v", k, d)
		}
	}
}

func TestInternalCausesStayInside(t *testing.T) {
	for _, err := range []error{errors.New("secret path"), fault.New(fault.Internal, "open", "secret path"), fmt.Errorf("x: %w", fault.New(fault.Internal, "", "secret path"))} {
		ce := ToConnect(err)
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
	if d := Detail(invalid("node.name", "x")); d.GetField() != "node.name" {
		t.Errorf("field %v", d)
	}
	if d := Detail(fault.New(fault.NotLeader, "", "x").WithDetail(&fault.LeaderDetail{Address: "h:1"})); d.GetLeader() != "h:1" {
		t.Errorf("leader %v", d)
	}
}

func TestContextErrors(t *testing.T) {
	if got := ToConnect(fmt.Errorf("x: %w", context.DeadlineExceeded)); got.Code() != connect.CodeDeadlineExceeded || detailOf(t, got).GetKind() != "timeout" {
		t.Errorf("deadline: %v", got)
	}
	for _, err := range []error{context.Canceled, fault.Wrap("read", context.Canceled)} {
		if got := ToConnect(err); got.Code() != connect.CodeCanceled {
			t.Errorf("canceled: %v", got)
		}
	}
}
