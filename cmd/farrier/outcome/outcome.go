package outcome

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
)

// Exit statuses. They are part of the interface.
const (
	ExitOK          = 0
	ExitFailure     = 1 // anything without a status of its own
	ExitUsage       = 2 // the command or a value in it is wrong
	ExitNotFound    = 3
	ExitConflict    = 4 // locked, illegal in this state, changed meanwhile, name taken
	ExitUnavailable = 5 // no quorum, no answer, a deadline passed, no live agent, a limit reached
	ExitDenied      = 6 // no certificate, or not allowed with it
	ExitWorkFailed  = 7 // --wait: the work ended in failure
	ExitNoConfig    = 8 // the configuration directory is not there, or not whole: no coordinator was asked
	ExitInterrupted = 130
)

// ErrNoConfig tells a missing configuration directory from a thing that the coordinators do not find.
var ErrNoConfig = errors.New("is no configuration directory")

// Of makes an error of a command one that Report and ExitCode read. ctx is the command's.
func Of(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range many.Unwrap() {
			out = append(out, Of(ctx, e))
		}
		if len(out) == 1 {
			return out[0]
		}
		return errors.Join(out...)
	}
	f := inCommands(client.Fault(err))
	if ctx.Err() != nil && (f.Help == "" || !errors.Is(err, context.Canceled)) {
		return fault.New(fault.Aborted, "", "interrupted: %w", context.Canceled).WithHelp("look before you repeat a change: it may have been made")
	}
	if w := (*WorkFailed)(nil); errors.As(err, &w) {
		return err
	}
	return f
}

// commandOf names the command of a verb of the API, which are Ironic's. Verbs that this version has no steps for have none.
var commandOf = map[string]string{ // read-only
	"manage": "manage", "provide": "provide", "inspect": "inspect", "clean": "clean", "active": "deploy", "rebuild": "rebuild",
	"deleted": "undeploy", "abort": "abort",
}

// Commands are the commands under `node`, by the API's verb. The caller may change what it gets.
func Commands() map[string]string { return maps.Clone(commandOf) }

// inCommands says a refusal in the words of the command line: what is legal, and what was refused.
func inCommands(f *fault.Error) *fault.Error {
	d, ok := f.Detail.(*fault.StateDetail)
	if !ok {
		return f
	}
	text := f.Error()
	for verb, use := range commandOf {
		if head, ok := strings.CutSuffix(text, ": "+verb+" is illegal"); ok {
			text = head + ": it cannot be told to " + use
		}
	}
	out := *f
	out.Op, out.Err = "", errors.New(text)
	var legal []string
	for _, verb := range d.LegalVerbs {
		if use, ok := commandOf[verb]; ok {
			legal = append(legal, "farrier node "+use)
		}
	}
	if strings.HasPrefix(f.Help, "legal now") {
		if out.Help = "wait for the work to end"; len(legal) > 0 {
			out.Help = "legal now: " + strings.Join(legal, ", ")
		}
	}
	return &out
}

// ExitCode is the status for an error of a command.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return ExitCode(many.Unwrap()[0])
	}
	if errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	if errors.Is(err, ErrNoConfig) {
		return ExitNoConfig
	}
	var w *WorkFailed
	if errors.As(err, &w) {
		return ExitWorkFailed
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return ExitFailure
	}
	switch f.Kind {
	case fault.Invalid, fault.TooLarge:
		return ExitUsage
	case fault.NotFound:
		return ExitNotFound
	case fault.Locked, fault.IllegalState, fault.VersionConflict, fault.Exists, fault.StaleToken:
		return ExitConflict
	case fault.NotLeader, fault.NoQuorum, fault.Unavailable, fault.Timeout, fault.NoAgent, fault.Busy, fault.UnknownOutcome:
		return ExitUnavailable
	case fault.Denied, fault.Unauthenticated, fault.Expired:
		return ExitDenied
	default:
		return ExitFailure
	}
}

// Report writes an error for people: what failed, the details, and what to do next.
func Report(w io.Writer, err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			Report(w, e)
		}
		return
	}
	fmt.Fprintf(w, "farrier: %s\n", view.Clean(err.Error()))
	var work *WorkFailed
	if errors.As(err, &work) {
		fmt.Fprintf(w, "  → %s\n", view.Clean(work.help()))
		return
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return
	}
	switch d := f.Detail.(type) {
	case *fault.LockDetail:
		fmt.Fprintf(w, "  holder   %s\n  purpose  %s\n  since    %s\n  token    %s\n  queued   %d\n", view.Clean(d.Holder), view.Clean(d.Purpose),
			time.Unix(0, d.SinceUnixNano).Local().Format(time.DateTime), view.TokenText(d.Token), d.Queued)
	}
	if f.Help != "" {
		fmt.Fprintf(w, "  → %s\n", view.Clean(f.Help))
	}
}

// WorkFailed says that the work that --wait waited for failed.
type WorkFailed struct {
	Node *farrierv1.Node
	Why  string // empty: what the node says
}

// Error implements error.
func (w *WorkFailed) Error() string {
	reason := cmp.Or(w.Why, w.Node.GetLastError(), w.Node.GetFlow().GetError(), "the work is "+w.Node.GetFlow().GetState())
	return fmt.Sprintf("%s is %q: %s", view.Title(w.Node), w.Node.GetProvisionState(), reason)
}

// help says how work is taken up again where it failed.
func (w *WorkFailed) help() string {
	name := view.Title(w.Node)
	var todo []string
	if w.Node.GetMaintenance() {
		todo = append(todo, fmt.Sprintf("farrier node maintenance unset %s", name))
	}
	switch w.Node.GetProvisionState() {
	case "clean failed", "inspect failed", "adopt failed":
		todo = append(todo, fmt.Sprintf("farrier node manage %s", name))
	default:
		todo = append(todo, "the same command again")
	}
	return fmt.Sprintf("the steps: farrier node show %s; once the cause is mended: %s", name, strings.Join(todo, ", "))
}
