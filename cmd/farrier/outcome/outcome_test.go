package outcome

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

// TestCtrlCSaidOnlyContextCanceled: with its own status, and what has become of the work.
func TestCtrlCSaidOnlyContextCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range []error{context.Canceled, fault.New(fault.Unavailable, "", "no answer").WithHelp("x"), errors.New("cut")} {
		got := Of(ctx, err)
		var out bytes.Buffer
		Report(&out, got)
		if ExitCode(got) != ExitInterrupted || !strings.Contains(out.String(), "→ ") {
			t.Errorf("%v: status %d\n%s", err, ExitCode(got), out.String())
		}
	}
	waited := fault.New(fault.Timeout, "", "wait for m1: interrupted: %w", ctx.Err()).WithHelp("the work goes on: farrier node watch m1")
	if got := Of(ctx, waited); ExitCode(got) != ExitInterrupted || !strings.Contains(got.(*fault.Error).Help, "goes on") {
		t.Errorf("%v: status %d", got, ExitCode(got))
	}
}
