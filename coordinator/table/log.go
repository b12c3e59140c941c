package table

import "github.com/farrier-project/farrier/coordinator/canon"

// Log is the changes of a command in work. The zero Log has none.
type Log struct {
	hasher canon.Writer
	undo   []change
}

// Hasher is a writer for whoever is between two calls of the Log.
func (l *Log) Hasher() *canon.Writer { return &l.hasher }

// Begin forgets the changes so far: they stay.
func (l *Log) Begin() {
	clear(l.undo)
	l.undo = l.undo[:0]
}

// Mark is where the changes have come, for Rollback.
func (l *Log) Mark() int { return len(l.undo) }

// Rollback takes back the changes since a Mark, the newest first.
func (l *Log) Rollback(mark int) {
	for i := len(l.undo) - 1; i >= mark; i-- {
		c := l.undo[i]
		c.table.revert(&l.hasher, c.old, c.new)
	}
	l.undo = l.undo[:mark]
}

// change is one of a record.
type change struct {
	table interface {
		revert(h *canon.Writer, old, new any)
	}
	old, new any // *R, nil for absence
}

// revert undoes a change to new; old is what was there before.
func (t *Table[K, R]) revert(h *canon.Writer, old, new any) {
	var now row[K, R]
	n := new.(*R)
	if n != nil {
		now, _ = t.rows.Get(row[K, R]{key: t.spec.Key(n)})
	}
	t.swap(h, now, n, old.(*R))
}

func (t *Table[K, R]) replace(l *Log, found row[K, R], old, new *R) {
	l.undo = append(l.undo, change{table: t, old: old, new: new})
	t.swap(&l.hasher, found, old, new)
}

// Put adds a record, or replaces the one with its key.
func (t *Table[K, R]) Put(l *Log, rec *R) {
	found, _ := t.rows.Get(row[K, R]{key: t.spec.Key(rec)})
	t.replace(l, found, t.open(found), rec)
}

// AddPacked adds a record that comes packed. It changes nothing, and answers so, if there is one with its key. Of rec only what
// Index looks at is needed.
func (t *Table[K, R]) AddPacked(l *Log, rec *R, p Packed) (added bool) {
	r := row[K, R]{key: t.spec.Key(rec), packed: p.Text, sum: p.Sum, aux: p.Aux}
	if old, there := t.rows.Set(r); there { // one way down a large tree, instead of two
		t.rows.Set(old)
		return false
	}
	l.undo = append(l.undo, change{table: t, old: (*R)(nil), new: rec})
	t.insert(r, rec)
	return true
}

// Drop deletes the record with a key, if it is there.
func (t *Table[K, R]) Drop(l *Log, key K) {
	if found, ok := t.rows.Get(row[K, R]{key: key}); ok {
		t.replace(l, found, t.open(found), nil)
	}
}

// Replace is Put of the table for who has the record that it replaces from Find.
func (c *Cursor[K, R]) Replace(l *Log, old, rec *R) {
	c.table.replace(l, c.row(c.table.spec.Key(rec)), old, rec)
}
