package leader_test

import (
	"errors"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/test/world"
)

// TestForwardedOnlyOnce: a member that was sent a request and does not lead says so; it does not send it on again.
func TestForwardedOnlyOnce(t *testing.T) {
	w := world.New(t, []string{"c1", "c2", "c3"}, "a1")
	f := w.Finder("c2")
	local, err := f.Route(t.Context(), true)
	if local || !fault.Is(err, fault.NotLeader) {
		t.Fatalf("local %v, %v", local, err)
	}
	var e *fault.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if d, ok := e.Detail.(*fault.LeaderDetail); !ok || "https://"+d.Address != w.URL["c1"] {
		t.Errorf("the leader is %+v", e.Detail)
	}
}
