package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
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

// work is what a verb asked for: how its end is judged.
type work struct {
	verb  string
	flow  uint64 // that the verb opened, or that was open; 0: none, the verb was done at once
	power bool   // the answer is the power state
}

func workOf(verb string, n *farrierv1.Node) work {
	w := work{verb: verb}
	if n.GetFlow().GetState() == "open" {
		w.flow = n.GetFlow().GetId()
	}
	return w
}

// settle shows the node at once, or follows it until its work is over if wait is set. Work that did not end as it was
// asked for is an error.
func (s *session) settle(n *farrierv1.Node, w work, wait bool, told string) error {
	if !wait {
		return s.Message(n, func() { fmt.Fprintf(s.Out, "%s: %s\n", view.Clean(view.Title(n)), told) })
	}
	end, err := s.follow(n)
	if err != nil {
		return err
	}
	if err := w.judge(end); err != nil {
		if s.Format != view.Table {
			return errors.Join(s.Message(end, nil), err)
		}
		return err
	}
	state := end.GetProvisionState()
	if w.power {
		state = end.GetPowerState()
	}
	return s.Message(end, func() { fmt.Fprintf(s.Out, "%s is %s\n", view.Clean(view.Title(end)), s.State(state)) })
}

// judge is nil if the work ended as it was asked for. What counts is the work and not the node's state: a machine whose
// deploy failed can be powered on. A tear down opens a second flow by itself; its end is the work's.
func (w work) judge(end *farrierv1.Node) error {
	f := end.GetFlow()
	switch {
	case w.flow == 0 || f.GetId() < w.flow:
		return nil
	case w.verb == "abort":
		if f.GetId() > w.flow || f.GetState() == "aborted" {
			return nil
		}
		return &outcome.WorkFailed{Node: end, Why: "its work ended before it could be aborted"}
	case f.GetState() != "done":
		return &outcome.WorkFailed{Node: end}
	case end.GetLastError() != "": // done, and yet not where it was to go
		return &outcome.WorkFailed{Node: end}
	}
	return nil
}

// follow shows the node until its work is over.
func (s *session) follow(n *farrierv1.Node) (*farrierv1.Node, error) {
	live := s.live(s.app.err)
	settled := errors.New("settled")
	end := n
	err := s.Observe(s.ctx, client.Observation{Nodes: []string{n.GetId()}, Away: s.away(live), Show: func(now *farrierv1.Node) error {
		end = now
		live.Show(now)
		if client.Settled(now) {
			return settled
		}
		return nil
	}})
	switch {
	case errors.Is(err, settled):
		return end, nil
	case s.ctx.Err() == nil:
		return nil, fault.Wrap("wait for "+view.Title(n), client.Fault(err))
	}
	why, doing := "interrupted", ""
	if errors.Is(err, context.DeadlineExceeded) {
		why = fmt.Sprintf("%v are over", s.app.timeout)
	}
	if f := end.GetFlow(); f.GetState() == "open" {
		doing = fmt.Sprintf(", flow %d (%s)", f.GetId(), f.GetKind())
	}
	return nil, fault.New(fault.Timeout, "", "wait for %s: %s; it is %s%s: %w", view.Title(n), why, end.GetProvisionState(), doing, s.ctx.Err()).
		WithHelp("the work goes on: farrier node watch %s", view.Title(n))
}

func (s *session) live(w io.Writer) *view.Live {
	return &view.Live{Out: w, TTY: terminal(w), Color: colour(w), Now: time.Now, Size: size(w)}
}

// away says that coordinators do not answer: waiting goes on.
func (s *session) away(live *view.Live) func(error) {
	return func(err error) {
		live.Note(fmt.Sprintf("the coordinators do not answer: %s; it goes on when they do", client.Fault(err)))
	}
}

// ended is nil for the end of what has no end of its own: --timeout, or Ctrl-C.
func (s *session) ended(err error) error {
	if s.ctx.Err() != nil {
		return nil
	}
	return err
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
