package cli

import (
	"cmp"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/fault"
)

func (a *app) event() *cobra.Command {
	c := &cobra.Command{Use: "tail", Short: "Print events as they happen, without a gap", Args: exactly(0)}
	nodes := c.Flags().StringSlice("node", nil, "only of these machines")
	types := c.Flags().StringSlice("type", nil, "only of these types")
	after := c.Flags().Uint64("after", 0, "begin after this log index instead of now")
	c.RunE = a.run(func(s *session, _ []string) error {
		req := &farrierv1.WatchRequest{Nodes: *nodes, Types: *types}
		if c.Flags().Changed("after") {
			req.After = &farrierv1.Position{Index: *after, Ordinal: 1<<32 - 1}
		}
		return s.events(req)
	})
	return noun("event", "What happened, and what happens now", c, a.eventList())
}

func (a *app) eventList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "Print the events that are kept, the newest 50,000", Args: exactly(0),
		Example: "  farrier event list --node web-1 --since 12h"}
	nodes := c.Flags().StringSlice("node", nil, "only of these machines")
	types := c.Flags().StringSlice("type", nil, "only of these types")
	since := c.Flags().String("since", "", "not before: how long ago, such as 12h, or a time such as \"2026-01-02 15:04\"")
	c.RunE = a.run(func(s *session, _ []string) error {
		from, err := parseSince(*since, time.Now())
		if err != nil {
			return err
		}
		return s.Events(s.ctx, &farrierv1.WatchRequest{Nodes: *nodes, Types: *types}, func(e *farrierv1.Event) error {
			if e.GetAt().AsTime().Before(from) {
				return nil
			}
			return s.event(e)
		})
	})
	return c
}

// parseSince reads a duration before now or a local time; no text is the beginning.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "--since", "%q is neither a duration nor a time", text).WithHelp("such as --since 12h or --since \"2026-01-02 15:04\"")
}

func (s *session) events(req *farrierv1.WatchRequest) error {
	err := s.Watch(s.ctx, req, func(item *farrierv1.WatchResponse) error {
		e := item.GetEvent()
		if e == nil {
			return nil
		}
		return s.event(e)
	})
	return s.ended(err)
}

func (s *session) event(e *farrierv1.Event) error {
	if s.Format != view.Table {
		return s.Line(e)
	}
	_, err := fmt.Fprintf(s.Out, "%s  %-22s %-16s %s\n", e.GetAt().AsTime().Local().Format("2006-01-02 15:04:05.000"), e.GetType(),
		view.Clean(cmp.Or(e.GetNodeName(), e.GetNode(), "-")), view.Clean(eventFields(e.GetFields())))
	return err
}

func eventFields(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		v := m[k]
		if strings.ContainsAny(v, " =\"") {
			v = fmt.Sprintf("%q", v)
		}
		fmt.Fprintf(&b, "%s=%s ", k, v)
	}
	return strings.TrimSpace(b.String())
}
