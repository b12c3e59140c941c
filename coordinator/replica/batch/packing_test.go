package batch

import (
	"slices"
	"testing"

	"github.com/farrier-project/farrier/coordinator/replica/entry"
)

// TestPacking: proposals share an entry in their order, up to its bound; an entry of another kind has one to itself.
func TestPacking(t *testing.T) {
	small, half, whole := make([]byte, 10), make([]byte, entry.Full/2+1), make([]byte, 2*entry.Full)
	for name, c := range map[string]struct {
		in   []*proposal
		want []int // proposals of each entry
	}{
		"all fit":        {[]*proposal{{kind: entry.Commands, data: small}, {kind: entry.Commands, data: half}, {kind: entry.Commands, data: small}}, []int{3}},
		"two halves":     {[]*proposal{{kind: entry.Commands, data: half}, {kind: entry.Commands, data: half}, {kind: entry.Commands, data: small}}, []int{1, 2}},
		"larger than it": {[]*proposal{{kind: entry.Commands, data: small}, {kind: entry.Commands, data: whole}, {kind: entry.Commands, data: small}}, []int{1, 1, 1}},
		"an archive":     {[]*proposal{{kind: entry.Commands, data: small}, {kind: entry.Part, data: small}, {kind: entry.Part, data: small}, {kind: entry.Commands, data: small}}, []int{1, 1, 1, 1}},
	} {
		queue := make(chan *proposal, len(c.in))
		for _, p := range c.in {
			queue <- p
		}
		var got []int
		var all []*proposal
		for e := (packing{}); ; {
			e.fill(queue)
			if len(e.proposals) == 0 {
				break
			}
			got, all = append(got, len(e.proposals)), append(all, e.proposals...)
			e = e.next()
		}
		if !slices.Equal(got, c.want) || !slices.Equal(all, c.in) {
			t.Errorf("%s: entries of %v, want %v; in order: %v", name, got, c.want, slices.Equal(all, c.in))
		}
	}
}
