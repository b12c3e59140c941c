package table

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/farrier-project/farrier/coordinator/canon"
)

// thing is a record; colours is the index of which have a colour.
type thing struct {
	id     int
	colour string
}

type world struct {
	things  Table[int, thing]
	colours Tree[entry]
}

type entry struct {
	colour string
	id     int
}

func newWorld() *world {
	w := &world{colours: NewTree(func(a, b entry) bool { return a.colour < b.colour || a.colour == b.colour && a.id < b.id })}
	w.things = New(Spec[int, thing]{
		Key:  func(t *thing) int { return t.id },
		Hash: Whole(write),
		Index: func(old, new *thing) {
			var a, b entry
			if old != nil {
				a = entry{old.colour, old.id}
			}
			if new != nil {
				b = entry{new.colour, new.id}
			}
			Move(&w.colours, a, old != nil, b, new != nil)
		},
		Pack: func(t *thing) string { return fmt.Sprintf("%d %s", t.id, t.colour) },
		Unpack: func(s string) *thing {
			t := &thing{}
			fmt.Sscanf(s, "%d %s", &t.id, &t.colour)
			return t
		},
	})
	return w
}

func write(h *canon.Writer, t *thing) {
	h.Num(uint64(t.id))
	h.Str(t.colour)
}

func packed(t *thing) Packed {
	var h canon.Writer
	write(&h, t)
	return Packed{Text: fmt.Sprintf("%d %s", t.id, t.colour), Sum: h.Sum()}
}

// content is what a table holds, by every way to read it, or why they disagree.
func (w *world) content() (map[int]string, error) {
	all := map[int]string{}
	w.things.Scan(func(t *thing) bool { all[t.id] = t.colour; return true })
	var sum uint64
	var index []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		t := w.things.Find(id)
		if t == nil || t.colour != all[id] || !w.things.Has(id) {
			return nil, fmt.Errorf("thing %d is found as %+v", id, t)
		}
		sum += packed(t).Sum
		index = append(index, fmt.Sprintf("%s %d", t.colour, t.id))
	}
	var indexed []string
	w.colours.Scan(func(e entry) bool { indexed = append(indexed, fmt.Sprintf("%s %d", e.colour, e.id)); return true })
	slices.Sort(index)
	slices.Sort(indexed)
	switch {
	case sum != w.things.Sum():
		return nil, fmt.Errorf("the hash is %x, want %x", w.things.Sum(), sum)
	case !slices.Equal(index, indexed):
		return nil, fmt.Errorf("the index is %v, want %v", indexed, index)
	case w.things.Len() != len(all):
		return nil, fmt.Errorf("%d of %d things", w.things.Len(), len(all))
	}
	if first, ok := w.things.First(); ok != (len(all) > 0) || ok && first != slices.Min(slices.Collect(maps.Keys(all))) {
		return nil, fmt.Errorf("the first is %d (%t)", first, ok)
	}
	return all, nil
}

// TestTable does what commands do, in any order, and compares with a map: hash and index are true after each change, a
// rollback leaves no trace, a frozen table never changes, and whether a record is packed cannot be seen.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		var log Log
		near := NewCursor(&w.things)
		model, before := map[int]string{}, map[int]string{}
		mark := log.Mark()
		frozen, then := w.things.Freeze(), map[int]string{}
		id, colour := rapid.IntRange(0, 9), rapid.SampledFrom([]string{"red", "green", "blue"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				x := &thing{id.Draw(t, "id"), colour.Draw(t, "colour")}
				w.things.Put(&log, x)
				model[x.id] = x.colour
			},
			"add packed": func(t *rapid.T) {
				x := &thing{id.Draw(t, "id"), colour.Draw(t, "colour")}
				_, there := model[x.id]
				if w.things.AddPacked(&log, x, packed(x)) == there {
					t.Fatalf("thing %d was added: %v", x.id, !there)
				}
				if !there {
					model[x.id] = x.colour
				}
			},
			"replace": func(t *rapid.T) {
				old := near.Find(id.Draw(t, "id"))
				if old == nil {
					return
				}
				if near.Find(old.id) != old {
					t.Fatal("the same record was opened twice")
				}
				x := &thing{old.id, colour.Draw(t, "colour")}
				near.Replace(&log, old, x)
				model[x.id] = x.colour
			},
			"drop": func(t *rapid.T) {
				x := id.Draw(t, "id")
				w.things.Drop(&log, x)
				delete(model, x)
			},
			"find": func(t *rapid.T) {
				x := id.Draw(t, "id")
				found, want := near.Find(x), model[x]
				if (found == nil) != (want == "") || found != nil && found.colour != want {
					t.Fatalf("thing %d is found as %+v, want %q", x, found, want)
				}
			},
			"pack": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "one") {
					w.things.Pack(id.Draw(t, "id"), func(*thing) bool { return true })
				} else {
					w.things.PackSome(id.Draw(t, "from"), 3, func(x *thing) bool { return x.colour != "red" })
				}
			},
			"begin": func(*rapid.T) {
				log.Begin()
				mark, before = log.Mark(), maps.Clone(model)
			},
			"roll back": func(*rapid.T) {
				log.Rollback(mark)
				model = maps.Clone(before)
			},
			"freeze": func(*rapid.T) { frozen, then = w.things.Freeze(), maps.Clone(model) },
			"": func(t *rapid.T) {
				all, err := w.content()
				if err != nil || !maps.Equal(all, model) {
					t.Fatalf("the table has %v, want %v: %v", all, model, err)
				}
				old := map[int]string{}
				frozen.Scan(func(x *thing) bool { old[x.id] = x.colour; return true })
				if !maps.Equal(old, then) {
					t.Fatalf("the frozen table has %v, it had %v", old, then)
				}
			},
		})
	})
}

func TestLoad(t *testing.T) {
	var h canon.Writer
	from, to := newWorld(), newWorld()
	for i := range 100 {
		x := &thing{i, []string{"red", "green"}[i%2]}
		if i%3 == 0 {
			from.things.Load(&h, x)
		} else {
			from.things.LoadPacked(x, packed(x), func(x *thing) bool { return x.colour == "red" })
		}
		to.things.Load(&h, &thing{i + 50, "blue"})
	}
	if _, err := from.content(); err != nil {
		t.Fatal(err)
	}
	to.things.CopyFrom(&h, &from.things, func(x *thing) { x.colour = strings.ToUpper(x.colour) })
	to.things.Unload(&h, 7)
	all, err := to.content()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 99 || all[8] != "RED" {
		t.Errorf("%d things, the eighth is %q", len(all), all[8])
	}
	var packedRed, whole int
	from.things.ScanPacked(func(rec *thing, text string) bool {
		if rec == nil && strings.HasSuffix(text, "red") {
			packedRed++
		}
		if rec != nil && text == "" {
			whole++
		}
		return true
	})
	if packedRed == 0 || packedRed+whole != 100 {
		t.Errorf("%d packed, %d whole", packedRed, whole)
	}
}

// TestPackSomeComesToTheEnd: whoever goes on where it said sees every record.
func TestPackSomeComesToTheEnd(t *testing.T) {
	w := newWorld()
	var h canon.Writer
	for i := range 10 {
		w.things.Load(&h, &thing{i + 1, "red"})
	}
	var seen []int
	for at, rounds := 0, 0; rounds < 4; rounds++ {
		at = w.things.PackSome(at, 3, func(x *thing) bool { seen = append(seen, x.id); return true })
		if (at == 0) != (rounds == 3) {
			t.Fatalf("round %d goes on at %d", rounds, at)
		}
	}
	if len(seen) != 10 {
		t.Errorf("saw %v", seen)
	}
}
