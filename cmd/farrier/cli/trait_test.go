package cli

import (
	"slices"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestOfTwoWhoAddATraitNoneLosesIt: a change that meets another one is made again over what the other one wrote, a bounded
// number of times.
func TestOfTwoWhoAddATraitNoneLosesIt(t *testing.T) {
	kept := &farrierv1.Node{Version: 1, Traits: []string{"CUSTOM_A"}}
	others, writes := 1, 0
	read := func() (*farrierv1.Node, error) {
		return &farrierv1.Node{Version: kept.Version, Traits: slices.Clone(kept.Traits)}, nil
	}
	write := func(n *farrierv1.Node, traits []string) (*farrierv1.Node, error) {
		writes++
		if others > 0 {
			others--
			kept.Version, kept.Traits = kept.Version+1, append(kept.Traits, "CUSTOM_OTHER")
		}
		if n.Version != kept.Version {
			return nil, fault.New(fault.VersionConflict, "update node", "it is at version %d", kept.Version)
		}
		kept = &farrierv1.Node{Version: kept.Version + 1, Traits: traits}
		return kept, nil
	}
	add := func(has []string) ([]string, error) { return addTraits(has, []string{"CUSTOM_B", "CUSTOM_A"}) }
	n, err := changeTraits(read, write, add)
	if err != nil || !slices.Equal(n.GetTraits(), []string{"CUSTOM_A", "CUSTOM_OTHER", "CUSTOM_B"}) {
		t.Errorf("added: %v, %v", n.GetTraits(), err)
	}
	if n, err = changeTraits(read, write, add); err != nil || writes != 2 || n.GetVersion() != kept.GetVersion() {
		t.Errorf("added again: %d writes, %v", writes, err)
	}
	others, writes = 1000, 0
	if _, err = changeTraits(read, write, func(has []string) ([]string, error) { return addTraits(has, []string{"CUSTOM_C"}) }); !fault.Is(err, fault.VersionConflict) || writes != traitTries {
		t.Errorf("never quiet: %d writes, %v", writes, err)
	}
	if _, err := removeTraits([]string{"CUSTOM_A"}, []string{"CUSTOM_A", "CUSTOM_B"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a trait that it does not have: %v", err)
	}
}
