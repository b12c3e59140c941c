package table

import (
	"cmp"

	"github.com/farrier-project/farrier/coordinator/canon"
)

// Table is one kind of record.
type Table[K, R any] struct {
	rows Tree[row[K, R]]
	sum  uint64
	spec *Spec[K, R]
}

// Spec says how a table names, hashes, indexes and packs its records.
type Spec[K, R any] struct {
	Key func(*R) K
	// Hash answers the hash of a record, old being the one that it replaces, or nil; h is there to be used. aux is kept with the
	// record, to save work at its next change.
	Hash func(h *canon.Writer, new, old *R, aux uint64) (sum, newAux uint64)
	// Index is told of each change; nil is absence. It may be nil itself.
	Index func(old, new *R)

	Pack   func(*R) string // nil: records of this table are never packed
	Unpack func(string) *R
}

// Packed is a packed record, with what Hash would answer for it.
type Packed struct {
	Text     string
	Sum, Aux uint64
}

// row is a record in a table. Which form it has is no part of what the table holds.
type row[K, R any] struct {
	key      K
	rec      *R     // nil: packed
	packed   string // by spec.Pack
	sum, aux uint64
}

// New is an empty table with keys that Go orders.
func New[K cmp.Ordered, R any](spec Spec[K, R]) Table[K, R] {
	return NewFunc(cmp.Less[K], spec)
}

// NewFunc is New for keys ordered by less.
func NewFunc[K, R any](less func(a, b K) bool, spec Spec[K, R]) Table[K, R] {
	return Table[K, R]{rows: NewTree(func(a, b row[K, R]) bool { return less(a.key, b.key) }), spec: &spec}
}

// Whole makes a Spec's Hash of what writes a whole record.
func Whole[R any](write func(*canon.Writer, *R)) func(*canon.Writer, *R, *R, uint64) (uint64, uint64) {
	return func(h *canon.Writer, r, _ *R, _ uint64) (uint64, uint64) {
		h.Reset()
		write(h, r)
		return h.Sum(), 0
	}
}

// Freeze is a table that never changes, for readers.
func (t *Table[K, R]) Freeze() Table[K, R] {
	return Table[K, R]{rows: t.rows.Freeze(), sum: t.sum, spec: t.spec}
}

// Sum is the hash: the sum of its records', 0 without any.
func (t *Table[K, R]) Sum() uint64 { return t.sum }

func (t *Table[K, R]) Len() int { return t.rows.Len() }

// Has tells whether there is a record with a key.
func (t *Table[K, R]) Has(key K) bool {
	_, ok := t.rows.Get(row[K, R]{key: key})
	return ok
}

// Find is the record with a key, or nil. Of a packed one it is a fresh copy.
func (t *Table[K, R]) Find(key K) *R {
	found, _ := t.rows.Get(row[K, R]{key: key})
	return t.open(found)
}

// First is the first key.
func (t *Table[K, R]) First() (key K, ok bool) {
	r, ok := t.rows.Min()
	return r.key, ok
}

// Ascend visits from a key on, until fn returns false.
func (t *Table[K, R]) Ascend(from K, fn func(*R) bool) {
	t.rows.Ascend(row[K, R]{key: from}, func(r row[K, R]) bool { return fn(t.open(r)) })
}

// Scan visits everything, until fn returns false.
func (t *Table[K, R]) Scan(fn func(*R) bool) {
	t.rows.Scan(func(r row[K, R]) bool { return fn(t.open(r)) })
}

// ScanPacked is Scan for who wants packed records as they lie: of rec and packed, one is there.
func (t *Table[K, R]) ScanPacked(fn func(rec *R, packed string) bool) {
	t.rows.Scan(func(r row[K, R]) bool { return fn(r.rec, r.packed) })
}

// open is the record of a row.
func (t *Table[K, R]) open(r row[K, R]) *R {
	if r.rec == nil && r.packed != "" {
		return t.spec.Unpack(r.packed)
	}
	return r.rec
}

// Pack packs a record in place, if it is there and may be.
func (t *Table[K, R]) Pack(key K, may func(*R) bool) {
	if r, ok := t.rows.Get(row[K, R]{key: key}); ok && r.rec != nil && may(r.rec) {
		t.repack(r)
	}
}

// PackSome looks at the next n records from a key on and packs those that may be. It answers where to go on: at the zero key
// when it came to the end.
func (t *Table[K, R]) PackSome(from K, n int, may func(*R) bool) (next K) {
	var rows []row[K, R]
	t.rows.Ascend(row[K, R]{key: from}, func(r row[K, R]) bool {
		if n--; n < 0 {
			next = r.key
			return false
		}
		if r.rec != nil && may(r.rec) {
			rows = append(rows, r)
		}
		return true
	})
	for _, r := range rows {
		t.repack(r)
	}
	return next
}

func (t *Table[K, R]) repack(r row[K, R]) {
	r.packed, r.rec = t.spec.Pack(r.rec), nil
	t.rows.Set(r)
}

// Load puts a record into a table that is being filled: it cannot be taken back.
func (t *Table[K, R]) Load(h *canon.Writer, rec *R) {
	found, _ := t.rows.Get(row[K, R]{key: t.spec.Key(rec)})
	t.swap(h, found, t.open(found), rec)
}

// LoadPacked is Load for a new record that comes packed, and for records that come in the order of their keys. It stays packed
// if may says so. Of rec only what Index looks at is needed, unless it may not stay packed.
func (t *Table[K, R]) LoadPacked(rec *R, p Packed, may func(*R) bool) {
	r := row[K, R]{key: t.spec.Key(rec), packed: p.Text, sum: p.Sum, aux: p.Aux}
	if !may(rec) {
		r.packed, r.rec = "", rec
	}
	t.rows.load(r)
	t.insert(r, rec)
}

func (t *Table[K, R]) insert(r row[K, R], rec *R) {
	t.sum += r.sum
	if t.spec.Index != nil {
		t.spec.Index(nil, rec)
	}
}

// swap replaces old by new, which have the same key; nil is absence. before is the row of old.
func (t *Table[K, R]) swap(h *canon.Writer, before row[K, R], old, new *R) {
	t.sum -= before.sum
	if new != nil {
		sum, aux := t.spec.Hash(h, new, old, before.aux)
		t.rows.Set(row[K, R]{key: t.spec.Key(new), rec: new, sum: sum, aux: aux})
		t.sum += sum
	} else {
		t.rows.Delete(before)
	}
	if t.spec.Index != nil {
		t.spec.Index(old, new)
	}
}

// Unload deletes a record without a way back.
func (t *Table[K, R]) Unload(h *canon.Writer, key K) {
	if found, ok := t.rows.Get(row[K, R]{key: key}); ok {
		t.swap(h, found, t.open(found), nil)
	}
}

// CopyFrom makes its records those of another table of the kind, each as change leaves it, without a way back.
func (t *Table[K, R]) CopyFrom(h *canon.Writer, from *Table[K, R], change func(*R)) {
	var keys []K
	t.Scan(func(r *R) bool { keys = append(keys, t.spec.Key(r)); return true })
	for _, key := range keys {
		t.Unload(h, key)
	}
	from.Scan(func(r *R) bool {
		next := *r
		change(&next)
		t.Load(h, &next)
		return true
	})
}
