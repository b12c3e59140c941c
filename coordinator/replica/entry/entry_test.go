package entry_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/pkg/fault"
)

func TestSealAndOpen(t *testing.T) {
	for _, k := range []entry.Kind{entry.Commands, entry.Part, entry.Restore} {
		sealed := entry.Seal("c", k, []byte("one"), nil, []byte("two"))
		got, content, err := entry.Open("c", sealed)
		if err != nil || got != k || string(content) != "onetwo" {
			t.Fatalf("kind %d: read %d, %q, %v", k, got, content, err)
		}
		if &content[0] != &sealed[len(sealed)-6] || cap(sealed) != len(sealed) {
			t.Errorf("kind %d: it was copied, or grew", k)
		}
		for bit := range len(sealed) * 8 {
			bad := bytes.Clone(sealed)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, _, err := entry.Open("c", bad); !fault.Is(err, fault.Corrupt) && !(bit < 8 && fault.Is(err, fault.Version)) {
				t.Errorf("kind %d, bit %d changed: %v", k, bit, err)
			}
		}
		if _, _, err := entry.Open("another", sealed); !fault.Is(err, fault.Corrupt) {
			t.Errorf("kind %d in another cluster: %v", k, err)
		}
	}
	if _, _, err := entry.Open("c", nil); !fault.Is(err, fault.Corrupt) {
		t.Errorf("no bytes: %v", err)
	}
	if n := testing.AllocsPerRun(10, func() { entry.Seal("c", entry.Commands, []byte("one")) }); n > 1 {
		t.Errorf("to seal takes %v allocations", n)
	}
}

// TestFormat holds the bytes: logs that were written are read for ever.
func TestFormat(t *testing.T) {
	const want = "01c64dfa09b2d78e01636f6d6d616e6473"
	if got := fmt.Sprintf("%x", entry.Seal("0123456789abcdef", entry.Commands, []byte("commands"))); got != want {
		t.Errorf("an entry is %s, it was %s", got, want)
	}
}
