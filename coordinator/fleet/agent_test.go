package fleet

import (
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// TestADeadAgentIsRemoved: whatever nodes it had.
func TestADeadAgentIsRemoved(t *testing.T) {
	if err := mayRemove(&farrierv1.Agent{State: "dead", Nodes: 3}); err != nil {
		t.Error(err)
	}
}
