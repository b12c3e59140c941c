package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// Bounds of what a shell waits for when it completes a name, and of what it is offered.
const (
	completionWait = 2 * time.Second
	maxCompletions = 200
)

// completeNodes has every command below c whose first argument is NODE complete the names of nodes.
func (a *app) completeNodes(c *cobra.Command) {
	for _, child := range c.Commands() {
		a.completeNodes(child)
	}
	if words := strings.Fields(c.Use); len(words) > 1 && strings.Trim(words[1], "[].") == "NODE" {
		c.ValidArgsFunction = a.nodeNames
	}
}

// nodeNames offers the names that begin with what was typed. Without an answer there is nothing to offer: an error has no
// place in the middle of a line that is being typed.
func (a *app) nodeNames(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 && !strings.Contains(c.Use, "...") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cl, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer cl.Close()
	ctx, cancel := contextWithTimeout(c.Context(), completionWait)
	defer cancel()
	res, err := cl.Nodes.ListNodes(ctx, &farrierv1.ListNodesRequest{PageSize: maxCompletions, OrderBy: "name", Stale: true,
		Filter: &farrierv1.NodeFilter{NameContains: typed}})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	for _, n := range res.GetNodes() {
		if strings.HasPrefix(n.GetName(), typed) {
			names = append(names, n.GetName())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
