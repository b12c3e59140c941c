package table

import "github.com/tidwall/btree"

// Tree is an ordered copy-on-write tree. The first change after a Freeze copies one path.
type Tree[T any] struct {
	live    *btree.BTreeG[T]
	frozen  *btree.BTreeG[T] // equal to live; nil after a change
	changes uint64           // made so far
}

// NewTree orders by less.
func NewTree[T any](less func(a, b T) bool) Tree[T] {
	return Tree[T]{live: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: 32})}
}

// Freeze is a tree that never changes, for readers.
func (t *Tree[T]) Freeze() Tree[T] {
	if t.frozen == nil {
		t.frozen = t.live.Copy()
	}
	return Tree[T]{live: t.frozen, frozen: t.frozen}
}

// Get is the value that is neither before nor after key.
func (t *Tree[T]) Get(key T) (T, bool) { return t.live.Get(key) }

// Min is the first value.
func (t *Tree[T]) Min() (T, bool) { return t.live.Min() }

func (t *Tree[T]) Len() int { return t.live.Len() }

// Set adds a value, or replaces the one that is neither before nor after it, and answers that one.
func (t *Tree[T]) Set(v T) (old T, replaced bool) {
	t.changed()
	return t.live.Set(v)
}

// load is Set for values that come in order.
func (t *Tree[T]) load(v T) {
	t.changed()
	t.live.Load(v)
}

// Delete removes a value, if it is there.
func (t *Tree[T]) Delete(key T) {
	t.changed()
	t.live.Delete(key)
}

func (t *Tree[T]) changed() {
	t.frozen = nil
	t.changes++
}

// Ascend visits from pivot on, until fn returns false.
func (t *Tree[T]) Ascend(pivot T, fn func(T) bool) { t.live.Ascend(pivot, fn) }

// Scan visits everything, until fn returns false.
func (t *Tree[T]) Scan(fn func(T) bool) { t.live.Scan(fn) }

// Move keeps an index: the old entry goes when it was there and differs, the new one comes.
func Move[T comparable](t *Tree[T], old T, had bool, new T, has bool) {
	if had && has && old == new {
		return
	}
	if had {
		t.Delete(old)
	}
	if has {
		t.Set(new)
	}
}
