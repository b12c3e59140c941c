package table

// Cursor finds records for the goroutine that changes a table. It asks for the same one several times in a row, which is
// looked up once, and opened once.
type Cursor[K comparable, R any] struct {
	table  *Table[K, R]
	some   bool
	near   row[K, R] // what was looked up last,
	at     uint64    // and how many changes the table had then
	opened *R        // the packed record that was opened last,
	from   string    // and from what
}

// NewCursor finds in t.
func NewCursor[K comparable, R any](t *Table[K, R]) Cursor[K, R] {
	return Cursor[K, R]{table: t}
}

// Find is the table's. Until the next change it answers the same copy of a packed record.
func (c *Cursor[K, R]) Find(key K) *R {
	r := c.row(key)
	if r.rec != nil || r.packed == "" {
		return r.rec
	}
	if c.opened == nil || c.from != r.packed {
		c.opened, c.from = c.table.open(r), r.packed
	}
	return c.opened
}

func (c *Cursor[K, R]) row(key K) row[K, R] {
	if !c.some || c.near.key != key || c.at != c.table.rows.changes {
		c.near, _ = c.table.rows.Get(row[K, R]{key: key})
		c.near.key = key // also when there is none
		c.some, c.at = true, c.table.rows.changes
	}
	return c.near
}
