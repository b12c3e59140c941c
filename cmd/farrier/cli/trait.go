package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/view"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
)

// traitTries bounds how often a change of traits is tried while others change the same machine.
const traitTries = 5

func (a *app) nodeTrait() *cobra.Command {
	list := &cobra.Command{Use: "list NODE", Short: "List a machine's traits", Args: exactly(1)}
	list.RunE = a.run(func(s *session, args []string) error {
		res, err := s.Nodes.GetNode(s.ctx, &farrierv1.GetNodeRequest{Node: args[0]})
		if err != nil {
			return err
		}
		var rows [][]string
		values := &structpb.ListValue{}
		for _, trait := range res.GetNode().GetTraits() {
			rows = append(rows, []string{trait})
			values.Values = append(values.Values, structpb.NewStringValue(trait))
		}
		answer := &structpb.Struct{Fields: map[string]*structpb.Value{"traits": structpb.NewListValue(values)}}
		return s.Message(answer, func() { s.Rows([]string{"TRAIT"}, rows) })
	})
	add := a.traitChange("add", "Add traits to a machine; those that it has stay", addTraits)
	add.ValidArgsFunction = a.offer(nodeNames, false)
	remove := a.traitChange("remove", "Remove traits from a machine; the others stay", removeTraits)
	remove.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.offer(nodeNames, false)(c, args, typed)
		}
		return a.offer(traitsOf(args[0]), true)(c, args, typed)
	}
	return noun("trait", "Traits of machines, one by one (`node set --trait` replaces all)", list, add, remove)
}

// traitChange is a command that changes the traits that a machine has.
func (a *app) traitChange(use, short string, change func(has, named []string) ([]string, error)) *cobra.Command {
	c := &cobra.Command{Use: use + " NODE TRAIT...", Short: short, Args: enough}
	wait := lockWait(c)
	c.RunE = a.run(func(s *session, args []string) error {
		read := func() (*farrierv1.Node, error) {
			res, err := s.Nodes.GetNode(s.ctx, &farrierv1.GetNodeRequest{Node: args[0]})
			return res.GetNode(), err
		}
		write := func(n *farrierv1.Node, traits []string) (*farrierv1.Node, error) {
			res, err := s.Nodes.UpdateNode(s.ctx, &farrierv1.UpdateNodeRequest{Node: &farrierv1.Node{Id: n.GetId(), Traits: traits},
				Mask: &fieldmaskpb.FieldMask{Paths: []string{"traits"}}, Version: n.GetVersion(), Wait: wait()})
			return res.GetNode(), err
		}
		n, err := changeTraits(read, write, func(has []string) ([]string, error) { return change(has, args[1:]) })
		if err != nil {
			return err
		}
		return s.Message(n, func() { s.say("%s: traits %s", view.Title(n), orNone(strings.Join(n.GetTraits(), ", "))) })
	})
	return c
}

// changeTraits writes only over the version that it read, and reads again when somebody else was faster: of two who add a
// trait each, both have added theirs.
func changeTraits(read func() (*farrierv1.Node, error), write func(*farrierv1.Node, []string) (*farrierv1.Node, error), change func([]string) ([]string, error)) (*farrierv1.Node, error) {
	for try := 1; ; try++ {
		n, err := read()
		if err != nil {
			return nil, err
		}
		traits, err := change(n.GetTraits())
		if err != nil {
			return nil, err
		}
		if slices.Equal(traits, n.GetTraits()) {
			return n, nil
		}
		written, err := write(n, traits)
		if err == nil || try == traitTries || client.Fault(err).Kind != fault.VersionConflict {
			return written, err
		}
	}
}

func addTraits(has, named []string) ([]string, error) {
	all := slices.Clone(has)
	for _, trait := range named {
		if !slices.Contains(all, trait) {
			all = append(all, trait)
		}
	}
	return all, nil
}

func removeTraits(has, named []string) ([]string, error) {
	for _, trait := range named {
		if !slices.Contains(has, trait) {
			return nil, fault.New(fault.NotFound, "remove trait", "the machine does not have %q", trait).
				WithHelp("it has: %s", orNone(strings.Join(has, ", ")))
		}
	}
	return slices.DeleteFunc(slices.Clone(has), func(trait string) bool { return slices.Contains(named, trait) }), nil
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// traitsOf offers the traits that a node has.
func traitsOf(node string) lister {
	return func(ctx context.Context, cl *client.Client, _ string) ([]string, error) {
		res, err := cl.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: node, Stale: true})
		return res.GetNode().GetTraits(), err
	}
}
