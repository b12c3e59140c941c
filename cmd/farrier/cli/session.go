package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
)

// session is one run of one command.
type session struct {
	*client.Client
	view.Printer
	app *app
	ctx context.Context
	cmd *cobra.Command
}

func contextWithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// say writes a line for people; programs get only the answer.
func (s *session) say(format string, args ...any) {
	if s.Format == view.Table {
		fmt.Fprintf(s.Out, format+"\n", args...)
	}
}

// settle shows the node at once, or follows it until its work is over if wait is set. Work that ended in failure is an
// error.
func (s *session) settle(n *farrierv1.Node, wait bool, told string) error {
	if !wait {
		return s.Message(n, func() { fmt.Fprintf(s.Out, "%s: %s\n", view.Clean(title(n)), told) })
	}
	live := view.Live{Out: s.app.err, TTY: terminal(s.app.err), Color: colour(s.app.err), Now: time.Now}
	end, err := s.Follow(s.ctx, n.GetId(), live.Show)
	if err != nil {
		return fault.Wrap("wait for "+title(n), client.Fault(err))
	}
	if state := end.GetProvisionState(); strings.HasSuffix(state, "failed") || state == "error" || end.GetFlow().GetState() == "failed" {
		if s.Format != view.Table {
			if err := s.Message(end, nil); err != nil {
				return err
			}
		}
		return &workFailed{end}
	}
	return s.Message(end, func() { fmt.Fprintf(s.Out, "%s is %s\n", view.Clean(title(end)), s.State(end.GetProvisionState())) })
}

func clock(t *timestamppb.Timestamp) string {
	if t == nil || t.GetSeconds() == 0 {
		return ""
	}
	return t.AsTime().Local().Format(time.DateTime)
}

// ago is a time as people think of it.
func ago(t *timestamppb.Timestamp) string {
	if t == nil || t.GetSeconds() == 0 {
		return ""
	}
	switch d := time.Since(t.AsTime()); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// keyValues reads repeated key=value flags.
func keyValues(flag string, values []string) (map[string]string, error) {
	out := map[string]string{}
	for _, v := range values {
		k, val, ok := strings.Cut(v, "=")
		if !ok || k == "" {
			return nil, fault.New(fault.Invalid, "--"+flag, "%q is not KEY=VALUE", v).WithHelp("write --%s KEY=VALUE, once for each key", flag)
		}
		out[k] = val
	}
	return out, nil
}
