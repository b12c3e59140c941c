package state

import (
	"cmp"

	"github.com/tidwall/btree"

	"github.com/farrier-project/farrier/coordinator/canon"
)

// tree is an ordered copy-on-write tree. freeze is O(1); the first change after it copies one path.
type tree[T any] struct {
	live    *btree.BTreeG[T]
	frozen  *btree.BTreeG[T] // equal to live; nil after a change
	changes uint64           // made so far
}

func newTree[T any](less func(a, b T) bool) tree[T] {
	return tree[T]{live: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: 32})}
}

// freeze is a tree that never changes, for readers.
func (t *tree[T]) freeze() tree[T] {
	if t.frozen == nil {
		t.frozen = t.live.Copy()
	}
	return tree[T]{live: t.frozen, frozen: t.frozen}
}

func (t *tree[T]) get(key T) (T, bool) { return t.live.Get(key) }
func (t *tree[T]) len() int            { return t.live.Len() }

func (t *tree[T]) set(v T) {
	t.frozen = nil
	t.changes++
	t.live.Set(v)
}

// load is set for values that come in order.
func (t *tree[T]) load(v T) {
	t.frozen = nil
	t.changes++
	t.live.Load(v)
}

func (t *tree[T]) delete(key T) {
	t.frozen = nil
	t.changes++
	t.live.Delete(key)
}

// ascend visits from pivot on, until fn returns false.
func (t *tree[T]) ascend(pivot T, fn func(T) bool) { t.live.Ascend(pivot, fn) }

// scan visits everything, until fn returns false.
func (t *tree[T]) scan(fn func(T) bool) { t.live.Scan(fn) }

// row is a record in a table with what it adds to the table's hash. aux is a part of the hash that is kept to
// save work: see hashNode. A record that is seldom changed may lie packed, which takes half the memory; which form
// it has is no part of the state.
type row[K, R any] struct {
	key      K
	rec      *R     // nil: packed
	packed   string // by spec.pack
	sum, aux uint64
}

// table is one kind of record in key order. Its indexes are kept by index, its hash is the sum of its rows'.
type table[K, R any] struct {
	rows tree[row[K, R]]
	sum  uint64
	spec *spec[K, R]
}

// spec says how a table names, hashes and indexes its records.
type spec[K, R any] struct {
	key   func(*R) K
	hash  func(h *canon.Writer, new, old *R, aux uint64) (sum, newAux uint64)
	index func(d *data, old, new *R)

	pack   func(*R) string // nil: records of this table are never packed
	unpack func(string) *R
}

// open is the record of a row: for a packed one a fresh copy.
func (t *table[K, R]) open(r row[K, R]) *R {
	if r.rec == nil && r.packed != "" {
		return t.spec.unpack(r.packed)
	}
	return r.rec
}

// repack packs a record in place, or leaves it.
func (t *table[K, R]) repack(r row[K, R]) {
	r.packed, r.rec = t.spec.pack(r.rec), nil
	t.rows.set(r)
}

func newTable[K cmp.Ordered, R any](key func(*R) K, hash func(*canon.Writer, *R), index func(d *data, old, new *R)) table[K, R] {
	return newTableFunc(cmp.Less[K], key, hash, index)
}

func newTableFunc[K, R any](less func(a, b K) bool, key func(*R) K, hash func(*canon.Writer, *R), index func(d *data, old, new *R)) table[K, R] {
	full := func(h *canon.Writer, r, _ *R, _ uint64) (uint64, uint64) {
		h.Reset()
		hash(h, r)
		return h.Sum(), 0
	}
	return table[K, R]{
		rows: newTree(func(a, b row[K, R]) bool { return less(a.key, b.key) }),
		spec: &spec[K, R]{key: key, hash: full, index: index},
	}
}

func (t *table[K, R]) freeze() table[K, R] {
	return table[K, R]{rows: t.rows.freeze(), sum: t.sum, spec: t.spec}
}

// find is the record with a key, or nil.
func (t *table[K, R]) find(key K) *R {
	found, _ := t.rows.get(row[K, R]{key: key})
	return t.open(found)
}

func (t *table[K, R]) len() int { return t.rows.len() }

func (t *table[K, R]) ascend(from K, fn func(*R) bool) {
	t.rows.ascend(row[K, R]{key: from}, func(r row[K, R]) bool { return fn(t.open(r)) })
}

func (t *table[K, R]) scan(fn func(*R) bool) {
	t.rows.scan(func(r row[K, R]) bool { return fn(t.open(r)) })
}

// swap replaces old by new, which have the same key; nil is absence. before is the row of old.
func (t *table[K, R]) swap(d *data, h *canon.Writer, before row[K, R], old, new *R) {
	t.sum -= before.sum
	if new != nil {
		sum, aux := t.spec.hash(h, new, old, before.aux)
		t.rows.set(row[K, R]{key: t.spec.key(new), rec: new, sum: sum, aux: aux})
		t.sum += sum
	} else {
		t.rows.delete(before)
	}
	if t.spec.index != nil {
		t.spec.index(d, old, new)
	}
}

// revert undoes a change to new; old is what was there before.
func (t *table[K, R]) revert(d *data, h *canon.Writer, old, new any) {
	var now row[K, R]
	n := new.(*R)
	if n != nil {
		now, _ = t.rows.get(row[K, R]{key: t.spec.key(n)})
	}
	t.swap(d, h, now, n, old.(*R))
}

// put writes a record and remembers how to undo it.
func put[K, R any](s *State, t *table[K, R], new *R) {
	found, _ := t.rows.get(row[K, R]{key: t.spec.key(new)})
	replace(s, t, found, t.open(found), new)
}

// replace is put for a caller that has the old record open.
func replace[K, R any](s *State, t *table[K, R], found row[K, R], old, new *R) {
	s.undo = append(s.undo, undo{table: t, old: old, new: new})
	t.swap(&s.data, &s.hasher, found, old, new)
}

// insert is put for a record that comes packed, in a new row. Of the record only what the indexes look at is needed.
func insert[K, R any](s *State, t *table[K, R], r row[K, R], rec *R) {
	s.undo = append(s.undo, undo{table: t, old: (*R)(nil), new: rec})
	t.rows.set(r)
	t.sum += r.sum
	if t.spec.index != nil {
		t.spec.index(&s.data, nil, rec)
	}
}

// drop deletes the record with a key, if it is there.
func drop[K, R any](s *State, t *table[K, R], key K) {
	found, ok := t.rows.get(row[K, R]{key: key})
	if !ok {
		return
	}
	old := t.open(found)
	s.undo = append(s.undo, undo{table: t, old: old, new: (*R)(nil)})
	t.swap(&s.data, &s.hasher, found, old, nil)
}

// undo is one change of the command in work. Reverting them in reverse order drops the command's changes.
type undo struct {
	table interface {
		revert(d *data, h *canon.Writer, old, new any)
	}
	old, new any // *R, nil for absence
}
