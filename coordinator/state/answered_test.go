package state

import (
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
)

func TestAnswered(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := command.RequestID{Client: "cl", Seq: 1, Digest: [16]byte{1}}
	if w.s.View().Answered("operator alice", id) {
		t.Error("answered before it was asked")
	}
	w.actor = "operator alice"
	if res := w.request(createBody(1), id); res.Err != nil {
		t.Fatal(res.Err)
	}
	v := w.s.View()
	other := id
	other.Digest[0]++
	for _, c := range []struct {
		actor string
		id    command.RequestID
		want  bool
	}{
		{"operator alice", id, true},
		{"operator bob", id, false},
		{"operator alice", other, false},
		{"operator alice", command.RequestID{Client: "cl", Seq: 2, Digest: id.Digest}, false},
		{"operator alice", command.RequestID{}, false},
	} {
		if got := v.Answered(c.actor, c.id); got != c.want {
			t.Errorf("%s %v: %v, want %v", c.actor, c.id, got, c.want)
		}
	}
}
