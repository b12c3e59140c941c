package canon

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Writer appends values to a buffer that is used again.
type Writer struct {
	buf  []byte
	keys []string
}

// NewWriter has room for so many bytes before it grows. The zero Writer is ready for use as well.
func NewWriter(size int) *Writer { return &Writer{buf: make([]byte, 0, size)} }

// Reset begins anew, in the same buffer.
func (w *Writer) Reset() { w.buf = w.buf[:0] }

// Bytes is what was written since Reset. The next Reset takes it back.
func (w *Writer) Bytes() []byte { return w.buf }

// Len is the number of bytes written since Reset.
func (w *Writer) Len() int { return len(w.buf) }

// Sum is the XXH64 of what was written since Reset.
func (w *Writer) Sum() uint64 { return xxhash.Sum64(w.buf) }

// Plain writes bytes as they are, without a length.
func (w *Writer) Plain(s string) { w.buf = append(w.buf, s...) }

func (w *Writer) Num(n uint64)        { w.buf = binary.AppendUvarint(w.buf, n) }
func (w *Writer) Dur(d time.Duration) { w.buf = binary.AppendVarint(w.buf, int64(d)) }
func (w *Writer) Raw(b []byte)        { w.Num(uint64(len(b))); w.buf = append(w.buf, b...) }

// When writes a time for people, to the nanosecond; the zero time is its own value.
func (w *Writer) When(t time.Time) {
	if t.IsZero() || t.UnixNano() == 0 {
		w.buf = append(w.buf, 0)
		return
	}
	w.buf = append(w.buf, 1)
	w.buf = binary.AppendVarint(w.buf, t.UnixNano())
}

func (w *Writer) Str(ss ...string) {
	for _, s := range ss {
		w.Num(uint64(len(s)))
		w.buf = append(w.buf, s...)
	}
}

func (w *Writer) Flag(bs ...bool) {
	for _, b := range bs {
		if b {
			w.buf = append(w.buf, 1)
		} else {
			w.buf = append(w.buf, 0)
		}
	}
}

func (w *Writer) List(ss []string) {
	w.Num(uint64(len(ss)))
	w.Str(ss...)
}

func (w *Writer) Dict(m map[string]string) {
	DictFunc(w, m, func(w *Writer, v string) { w.Str(v) })
}

// DictFunc is Dict for a map of other values, which are no maps themselves.
func DictFunc[V any](w *Writer, m map[string]V, value func(*Writer, V)) {
	w.Num(uint64(len(m)))
	w.keys = w.keys[:0]
	for k := range m {
		w.keys = append(w.keys, k)
	}
	slices.Sort(w.keys)
	for _, k := range w.keys {
		w.Str(k)
		value(w, m[k])
	}
}
