package apply

import (
	"testing"

	"github.com/farrier-project/farrier/coordinator/command"
)

func TestAnswered(t *testing.T) {
	w := newWorld(t)
	w.agent("r1", 1)
	id := command.RequestID{Client: "cl", Seq: 1, Digest: [16]byte{1}}
	if _, done := w.s.View().Answered("operator alice", id); done {
		t.Error("answered before it was asked")
	}
	w.actor = "operator alice"
	first := w.request(createBody(1), id)
	if first.Err != nil {
		t.Fatal(first.Err)
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
		res, got := v.Answered(c.actor, c.id)
		if got != c.want {
			t.Errorf("%s %v: %v, want %v", c.actor, c.id, got, c.want)
		}
		if got && (res.Node != first.Node || res.Version != first.Version) {
			t.Errorf("%s %v: answered %+v, want %+v", c.actor, c.id, res, first)
		}
	}
}
