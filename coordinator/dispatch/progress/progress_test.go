package progress

import (
	"fmt"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/node"
)

func TestBoard(t *testing.T) {
	var b Board
	b.Drop("1")
	b.Clear()
	if _, ok := b.Get("1"); ok {
		t.Error("something was said of a node that nobody spoke of")
	}
	b.Put("1", Said{Flow: 7, Step: 1, What: &farrierv1.Progress{Text: "half"}})
	b.Put("1", Said{Flow: 7, Step: 2, What: &farrierv1.Progress{Text: "whole"}})
	if s, ok := b.Get("1"); !ok || s.Flow != 7 || s.Step != 2 || s.What.Text != "whole" {
		t.Errorf("%v: %+v", ok, s)
	}
	b.Drop("1")
	if _, ok := b.Get("1"); ok {
		t.Error("a dropped node has progress")
	}
}

func TestBoardIsBounded(t *testing.T) {
	var b Board
	for i := range most + 1 {
		b.Put(node.ID(fmt.Sprint(i)), Said{Step: 1})
	}
	if _, ok := b.Get(node.ID(fmt.Sprint(most))); ok || len(b.nodes) != most {
		t.Errorf("%d nodes, the one too many: %v", len(b.nodes), ok)
	}
	b.Put("0", Said{Step: 2})
	if s, _ := b.Get("0"); s.Step != 2 {
		t.Errorf("a node that was there stands still: %+v", s)
	}
}
