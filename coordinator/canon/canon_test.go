package canon

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// values is one of everything that can be written.
type values struct {
	num  uint64
	dur  time.Duration
	raw  []byte
	when time.Time
	str  string
	flag bool
	list []string
	dict map[string]string
	durs map[string]time.Duration
}

func draw(t *rapid.T) values {
	v := values{
		num: rapid.Uint64().Draw(t, "num"), dur: time.Duration(rapid.Int64().Draw(t, "dur")), raw: rapid.SliceOf(rapid.Byte()).Draw(t, "raw"),
		str: rapid.String().Draw(t, "str"), flag: rapid.Bool().Draw(t, "flag"), list: rapid.SliceOf(rapid.String()).Draw(t, "list"),
		dict: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "dict"),
		durs: map[string]time.Duration{"a": time.Duration(rapid.Int64().Draw(t, "a"))},
	}
	if ns := rapid.Int64().Draw(t, "when"); ns != 0 {
		v.when = time.Unix(0, ns).UTC()
	}
	return v
}

func (v values) write(w *Writer) {
	w.Num(v.num)
	w.Dur(v.dur)
	w.Raw(v.raw)
	w.When(v.when)
	w.Str(v.str)
	w.Flag(v.flag)
	w.List(v.list)
	w.Dict(v.dict)
	DictFunc(w, v.durs, (*Writer).Dur)
}

func read(r *Reader) values {
	return values{
		num: r.Num(), dur: r.Dur(), raw: r.Raw(), when: r.When(), str: r.Str(), flag: r.Flag(), list: r.List(), dict: r.Dict(),
		durs: ReadDictFunc(r, (*Reader).Dur),
	}
}

func (v values) equal(o values) bool {
	return v.num == o.num && v.dur == o.dur && slices.Equal(v.raw, o.raw) && v.when.Equal(o.when) && v.str == o.str && v.flag == o.flag &&
		slices.Equal(v.list, o.list) && maps.Equal(v.dict, o.dict) && maps.Equal(v.durs, o.durs)
}

// TestWhatIsWrittenIsRead: everything comes back, equal values have equal bytes, and a part of them is not taken for a whole.
func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := draw(t)
		var w Writer
		v.write(&w)
		whole := string(w.Bytes())
		r := NewReader(whole)
		if back := read(r); !r.Whole() || !back.equal(v) {
			t.Fatalf("wrote %+v, read %+v", v, back)
		}
		w.Reset()
		v.dict = maps.Clone(v.dict)
		if v.write(&w); string(w.Bytes()) != whole {
			t.Fatal("equal values have other bytes")
		}
		over := NewReader(whole)
		over.Over()
		if back := read(over); !over.Whole() || back.str != v.str || len(back.raw)+len(back.list)+len(back.dict)+len(back.durs) > 0 {
			t.Fatalf("read over, %+v", back)
		}
		cut := rapid.IntRange(0, len(whole)-1).Draw(t, "cut")
		if r := NewReader(whole[:cut]); func() bool { read(r); return r.Whole() }() {
			t.Fatalf("%d of %d bytes were read as a whole", cut, len(whole))
		}
	})
}

// TestAMapOutOfOrderIsNotRead: its bytes, and with them a hash, would depend on who wrote it.
func TestAMapOutOfOrderIsNotRead(t *testing.T) {
	for name, keys := range map[string][]string{"backwards": {"b", "a"}, "twice": {"a", "a"}} {
		for _, over := range []bool{false, true} {
			var w Writer
			w.Num(2)
			w.Str(keys[0], "x", keys[1], "y")
			r := NewReader(string(w.Bytes()))
			if over {
				r.Over()
			}
			if r.Dict(); r.Whole() {
				t.Errorf("%s: it was read (over: %t)", name, over)
			}
		}
	}
}
