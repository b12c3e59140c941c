package apply

import "testing"

func TestMainPath(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := w.create(1)
	w.is(id, "enroll")
	for _, s := range []struct{ verb, state string }{
		{"manage", "manageable"}, {"inspect", "manageable"}, {"clean", "manageable"}, {"provide", "available"},
		{"active", "active"}, {"rebuild", "active"}, {"deleted", "available"}, {"manage", "manageable"},
	} {
		w.to(id, s.verb)
		w.is(id, s.state)
		n := w.node(id)
		if n.Lock.Held() || n.FlowOpen || n.TargetProvision != 0 || n.LastError != "" {
			t.Fatalf("after %s: %+v", s.verb, n)
		}
	}
	n := w.node(id)
	if n.Properties["cpus"] != "8" || n.Properties["vendor"] != "Acme" || n.BootMode != "uefi" {
		t.Errorf("what inspection and verify found is lost: %v, %q", n.Properties, n.BootMode)
	}
	if data, at, ok := w.s.View().Inventory(id); !ok || string(data) != "inventory" || at.IsZero() {
		t.Errorf("inventory %q", data)
	}
}
