package watch

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// TestEveryEventTypeCanBeAskedFor reads the types where they are defined.
func TestEveryEventTypeCanBeAskedFor(t *testing.T) {
	src, err := os.ReadFile("../state/event.go")
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, m := range regexp.MustCompile(`(?m)^\tEvent\w+ += "([^"]+)"`).FindAllStringSubmatch(string(src), -1) {
		types = append(types, m[1])
	}
	if !slices.Equal(types, eventTypes) || len(types) == 0 {
		t.Errorf("defined are %v, known %v", types, eventTypes)
	}
}

// TestFollowersHadNoProgress: the leader refused the request with which they ask for it.
func TestFollowersHadNoProgress(t *testing.T) {
	w := &watcher{types: map[string]bool{}}
	id := node.ID("11111111-2222-4333-8444-555555555555")
	if err := w.filter(state.New().View(), progressOf(map[node.ID]bool{id: true})); err != nil || !w.nodes[id] {
		t.Errorf("the leader answers %v, and looks at %v", err, w.nodes)
	}
}
