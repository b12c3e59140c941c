package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
)

// Bounds of what a shell waits for when it completes a name, and of what it is offered.
const (
	completionWait = 2 * time.Second
	maxCompletions = 200
)

// lister offers names; those that do not begin with what was typed are left out by its caller.
type lister func(ctx context.Context, cl *client.Client, typed string) ([]string, error)

// Listers by the word for which a command's first argument stands in its usage line, and by flag.
var (
	argumentNames = map[string]lister{"NODE": nodeNames, "AGENT": agentNames, "MEMBER": memberNames, "OPERATOR": operatorNames, "PORT": portNames, "NAME=VALUE": settingNames} // read-only
	flagNames     = map[string]lister{"node": nodeNames, "agent": agentNames, "group": groupNames, "driver": driverNames}                                                      // read-only
)

// complete has the arguments and flags of c and of every command below it offer the names that the cluster knows and the values
// that there are. Files are offered where one can stand.
func (a *app) complete(c *cobra.Command) {
	for _, child := range c.Commands() {
		a.complete(child)
	}
	if words := strings.Fields(c.Use); len(words) > 1 && c.ValidArgsFunction == nil {
		if list := argumentNames[strings.Trim(words[1], "[].")]; list != nil {
			c.ValidArgsFunction = a.offer(list, strings.Contains(c.Use, "..."))
		}
	}
	if c.ValidArgsFunction == nil && !c.HasSubCommands() && !strings.Contains(c.Use, "FILE") {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	flag := func(f *pflag.Flag) {
		offer := cobra.CompletionFunc(cobra.NoFileCompletions)
		switch list, values := flagNames[f.Name], flagValues[f.Name]; {
		case list != nil:
			offer = a.offer(list, true)
		case values != nil:
			offer = oneOf(values, f.Value.Type() == "stringSlice")
		case slices.Contains(fileFlags, f.Name):
			return
		}
		_ = c.RegisterFlagCompletionFunc(f.Name, offer) // it fails for a flag that has one of its own, which stays
	}
	c.Flags().VisitAll(flag)
	c.PersistentFlags().VisitAll(flag)
}

// offer asks the cluster. Without an answer there is nothing to offer: an error has no place in the middle of a line that is
// being typed.
func (a *app) offer(list lister, more bool) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && !more {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cl, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer cl.Close()
		ctx, cancel := contextWithTimeout(c.Context(), completionWait)
		defer cancel()
		names, err := list(ctx, cl, typed)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == "" || !strings.HasPrefix(name, typed) })
		directive := cobra.ShellCompDirectiveNoFileComp
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, "=") }) {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return names[:min(len(names), maxCompletions)], directive
	}
}

func nodeNames(ctx context.Context, cl *client.Client, typed string) (names []string, err error) {
	res, err := cl.Nodes.ListNodes(ctx, &farrierv1.ListNodesRequest{PageSize: maxCompletions, OrderBy: "name", Stale: true,
		Filter: &farrierv1.NodeFilter{NameContains: typed}})
	for _, n := range res.GetNodes() {
		names = append(names, n.GetName())
	}
	return names, err
}

func agentNames(ctx context.Context, cl *client.Client, _ string) ([]string, error) {
	return ofAgents(ctx, cl, func(a *farrierv1.Agent) []string { return []string{a.GetName()} })
}

func groupNames(ctx context.Context, cl *client.Client, _ string) ([]string, error) {
	return ofAgents(ctx, cl, func(a *farrierv1.Agent) []string { return []string{a.GetGroup()} })
}

func driverNames(ctx context.Context, cl *client.Client, _ string) ([]string, error) {
	return ofAgents(ctx, cl, (*farrierv1.Agent).GetDrivers)
}

// ofAgents is what the agents have, each once, in order.
func ofAgents(ctx context.Context, cl *client.Client, of func(*farrierv1.Agent) []string) ([]string, error) {
	res, err := cl.Agents.ListAgents(ctx, &farrierv1.ListAgentsRequest{})
	all := map[string]bool{}
	for _, a := range res.GetAgents() {
		for _, name := range of(a) {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all)), err
}

func memberNames(ctx context.Context, cl *client.Client, _ string) (names []string, err error) {
	res, err := cl.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
	for _, m := range res.GetMembers() {
		names = append(names, m.GetId())
	}
	return names, err
}

// portNames are MAC addresses.
func portNames(ctx context.Context, cl *client.Client, _ string) (names []string, err error) {
	res, err := cl.Ports.ListPorts(ctx, &farrierv1.ListPortsRequest{PageSize: maxCompletions})
	for _, p := range res.GetPorts() {
		names = append(names, p.GetAddress())
	}
	return names, err
}

func settingNames(context.Context, *client.Client, string) (names []string, err error) {
	fields := (*farrierv1.Settings)(nil).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name())+"=")
	}
	return names, nil
}
