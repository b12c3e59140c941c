package cli

import (
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
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
		return s.events(req, "")
	})
	return noun("event", "What happened", c)
}

func (s *session) events(req *farrierv1.WatchRequest, prefix string) error {
	err := s.Watch(s.ctx, req, func(item *farrierv1.WatchResponse) error {
		e := item.GetEvent()
		if e == nil {
			return nil
		}
		if s.Format != view.Table {
			return s.Line(e)
		}
		_, err := fmt.Fprintf(s.Out, "%s%s  %-22s %-16s %s\n", prefix, e.GetAt().AsTime().Local().Format("15:04:05.000"), e.GetType(),
			view.Clean(first(e.GetNodeName(), e.GetNode(), "-")), view.Clean(eventFields(e.GetFields())))
		return err
	})
	return s.ended(err)
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
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
