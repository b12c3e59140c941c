package ballot_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/farrier-project/farrier/coordinator/replica/ballot"
)

func TestVerdict(t *testing.T) {
	h := func(b byte) ballot.Message { return ballot.Message{{Index: 1000, Hash: [16]byte{b}}} }
	for _, c := range []struct {
		name              string
		said              map[string]byte
		voters            []string
		minority, differs bool
	}{
		{"all alike", map[string]byte{"a": 1, "b": 1, "c": 1}, []string{"a", "b", "c"}, false, false},
		{"alone", map[string]byte{"a": 1}, []string{"a", "b", "c"}, false, false},
		{"in the minority", map[string]byte{"a": 1, "b": 2, "c": 2}, []string{"a", "b", "c"}, true, true},
		{"in the majority", map[string]byte{"a": 1, "b": 1, "c": 2}, []string{"a", "b", "c"}, false, true},
		{"one against one", map[string]byte{"a": 1, "b": 2}, []string{"a", "b", "c"}, false, true},
		{"three ways", map[string]byte{"a": 1, "b": 2, "c": 3}, []string{"a", "b", "c"}, false, true},
		{"two of five", map[string]byte{"a": 1, "b": 2, "c": 2}, []string{"a", "b", "c", "d", "e"}, false, true},
		{"three of five", map[string]byte{"a": 1, "b": 2, "c": 2, "d": 2}, []string{"a", "b", "c", "d", "e"}, true, true},
		{"outvoted by one that has no vote", map[string]byte{"a": 1, "b": 2, "x": 2}, []string{"a", "b", "c"}, false, true},
	} {
		b := ballot.New("a")
		for m, v := range c.said {
			b.Put(m, h(v))
		}
		minority, differ := b.Verdict(c.voters)
		if minority != 0 != c.minority || differ != 0 != c.differs {
			t.Errorf("%s: minority at %d, differ at %d", c.name, minority, differ)
		}
	}
}

// TestMessage: what was written is read, no byte past it is, and no more than the bound is made room for.
func TestMessage(t *testing.T) {
	b := ballot.New("a")
	for i := range uint64(20) {
		b.Put("a", ballot.Message{{Index: i * 1000, Hash: [16]byte{byte(i)}}})
	}
	b.Put("a", ballot.Message{{Index: 5000, Hash: [16]byte{99}}}) // late
	own := b.Own()
	if len(own) != 8 || own[0].Index != 12000 || own[7].Index != 19000 {
		t.Fatalf("kept are %v", own)
	}
	in := bytes.NewReader(append(own.Encode(), "more"...))
	got, err := ballot.Read(in)
	if err != nil || !slices.Equal(got, own) || in.Len() != len("more") {
		t.Errorf("read %v, %v, %d bytes are left", got, err, in.Len())
	}
	for _, bad := range [][]byte{{}, {9}, own.Encode()[:100]} {
		if got, err := ballot.Read(bytes.NewReader(bad)); err == nil {
			t.Errorf("%d bytes are read as %v", len(bad), got)
		}
	}
}
