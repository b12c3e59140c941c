package canon

import (
	"encoding/binary"
	"time"
)

// Reader reads what a Writer wrote. Its texts share the bytes that it reads.
type Reader struct {
	rest string
	cut  bool
	over bool
}

// NewReader reads from the beginning of s.
func NewReader(s string) *Reader { return &Reader{rest: s} }

// Rest is how many bytes have not been read.
func (r *Reader) Rest() int { return len(r.rest) }

// Whole tells whether everything was read, and was as a Writer writes it.
func (r *Reader) Whole() bool { return !r.cut && r.rest == "" }

// Over makes it check lists, maps and Raw bytes and answer none of them: what nobody looks at need not be made.
func (r *Reader) Over() { r.over = true }

// fail leaves nothing to be read.
func (r *Reader) fail() { r.rest, r.cut = "", true }

// take is the next n bytes; fewer are none, and nothing comes after them.
func (r *Reader) take(n uint64) string {
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *Reader) Num() uint64 {
	var n uint64
	for i := 0; i < min(len(r.rest), binary.MaxVarintLen64); i++ { // bytes, not runes
		b := r.rest[i]
		if n |= uint64(b&0x7f) << (7 * i); b < 0x80 {
			r.rest = r.rest[i+1:]
			return n
		}
	}
	r.fail()
	return 0
}

// Count is the number of things that follow, each of at least one byte.
func (r *Reader) Count() uint64 {
	n := r.Num()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return n
}

func (r *Reader) Dur() time.Duration { return time.Duration(r.zigzag()) }

func (r *Reader) zigzag() int64 {
	n := r.Num()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *Reader) Str() string { return r.take(r.Num()) }

func (r *Reader) Strs(to ...*string) {
	for _, s := range to {
		*s = r.Str()
	}
}

// Raw is a copy; no bytes are nil.
func (r *Reader) Raw() []byte {
	if s := r.Str(); s != "" && !r.over {
		return []byte(s)
	}
	return nil
}

func (r *Reader) Flag() bool { return r.take(1) == "\x01" }

func (r *Reader) When() time.Time {
	if !r.Flag() {
		return time.Time{}
	}
	return time.Unix(0, r.zigzag()).UTC()
}

// List is nil without texts.
func (r *Reader) List() []string {
	n := r.Count()
	if n == 0 || r.over {
		for range n {
			r.Str()
		}
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.Str()
	}
	return list
}

// Dict is nil without pairs.
func (r *Reader) Dict() map[string]string {
	return ReadDictFunc(r, (*Reader).Str)
}

// ReadDictFunc is Dict for what DictFunc wrote. Keys that are not in order leave it cut: the bytes of a map would depend on who
// wrote it.
func ReadDictFunc[V any](r *Reader, value func(*Reader) V) map[string]V {
	n := r.Count()
	var m map[string]V
	if n > 0 && !r.over {
		m = make(map[string]V, n)
	}
	last := ""
	for i := range n {
		k := r.Str()
		if i > 0 && k <= last && !r.cut {
			r.fail()
		}
		last = k
		v := value(r)
		if m != nil {
			m[k] = v
		}
	}
	return m
}
