package work

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestNodesWereNeverForgotten: an agent that nodes came to and left again refused new ones in the end, without a word.
func TestNodesWereNeverForgotten(t *testing.T) {
	s := New(1)
	id := func(n int) string { return fmt.Sprint("n", n) }
	s.Step(0, Welcomed{Session: "s1", TTL: time.Second})
	for n := range MaxNodes {
		s.Step(0, Assigned{Node: id(n), Token: 1, Epoch: 1})
	}
	if out := s.Step(0, Assigned{Node: "more", Token: 1, Epoch: 1}); !slices.Contains(out, Effect(Overflow{"more"})) {
		t.Fatalf("one node more than there is room for: %v, want to be told", out)
	}
	if out := s.Step(0, Unassigned{Node: id(7), Epoch: 1}); !slices.Contains(out, Effect(Erase{id(7)})) {
		t.Errorf("a node that is done with: %v, want its record erased", out)
	}
	s.Step(0, Assigned{Node: "more", Token: 5, Epoch: 1})
	if s.Token("more") != 5 {
		t.Error("there is no room after a node has left")
	}
}
