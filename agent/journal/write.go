package journal

import (
	"encoding/binary"
	"hash/crc32"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Entry is one record to write; a nil Value removes it.
type Entry struct {
	Table Table
	Key   string
	Value []byte
}

// Commit is a batch that is, or will be, on disk.
type Commit struct {
	w       *writer
	entries []Entry
	done    chan struct{} // closed once err is final
	err     error
}

// writer groups writes: whoever waits first writes for all that have joined.
type writer struct {
	commit func([]Entry) error

	mu   sync.Mutex // guards open and failed
	open *Commit
	bad  error // the first failure: latched, the disk cannot be trusted after it

	turn sync.Mutex // held while a batch is written; taken before mu
}

// Put joins the open batch. Nothing is on disk until Wait returns nil. Entries that no journal can hold are refused, all
// of the call, and nothing else is: Invalid or TooLarge.
func (w *writer) Put(entries ...Entry) *Commit {
	for _, e := range entries {
		if err := e.check(); err != nil {
			c := &Commit{err: err, done: make(chan struct{})}
			close(c.done)
			return c
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = &Commit{w: w, done: make(chan struct{})}
	}
	w.open.entries = append(w.open.entries, entries...)
	return w.open
}

func (e Entry) check() error {
	switch {
	case e.Table == 0 || e.Table >= endOfTables || e.Key == "" || len(e.Key) > MaxKey:
		return fault.New(fault.Invalid, "write journal", "table %s, a key of %d bytes", e.Table, len(e.Key))
	case len(e.Value) > MaxValue:
		return fault.New(fault.TooLarge, "write journal", "table %s, key %q: %d bytes, more than %d", e.Table, e.Key, len(e.Value), MaxValue)
	}
	return nil
}

// Wait returns once the batch is on disk, or with the error that kept it from getting there. After one failure
// every later write fails too.
func (c *Commit) Wait() error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	w := c.w
	w.turn.Lock()
	defer w.turn.Unlock()
	select {
	case <-c.done:
		return c.err
	default:
	}
	w.mu.Lock() // c is the open batch: an older one would be done, since batches are written in order
	w.open = nil
	err := w.bad
	w.mu.Unlock()
	if err == nil {
		err = fault.Wrap("write journal", w.commit(c.entries))
	}
	if err != nil {
		w.mu.Lock()
		w.bad = err
		w.mu.Unlock()
	}
	c.err, c.entries = err, nil
	close(c.done)
	return err
}

// Flush writes what nobody waits for, and tells of an earlier failure also when there is nothing to write.
func (w *writer) Flush() error {
	w.mu.Lock()
	c, bad := w.open, w.bad
	w.mu.Unlock()
	if c == nil {
		return bad
	}
	return c.Wait()
}

// write is one transaction: bbolt syncs the file before it returns.
func (j *Journal) write(entries []Entry) error {
	return j.db.Update(func(tx *bbolt.Tx) error {
		for _, e := range entries {
			b := tx.Bucket([]byte(e.Table.String()))
			var err error
			if e.Value == nil {
				err = b.Delete([]byte(e.Key))
			} else {
				err = b.Put([]byte(e.Key), seal(e.Table.String(), e.Key, e.Value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func sum(table, key string, value []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, t, []byte(table))
	c = crc32.Update(c, t, []byte{0})
	c = crc32.Update(c, t, []byte(key))
	c = crc32.Update(c, t, []byte{0})
	return crc32.Update(c, t, value)
}

func seal(table, key string, value []byte) []byte {
	box := make([]byte, 0, 4+len(value))
	box = binary.BigEndian.AppendUint32(box, sum(table, key, value))
	return append(box, value...)
}

// unseal gives nil for nil: there is no such record.
func unseal(table, key string, box []byte) ([]byte, error) {
	if box == nil {
		return nil, nil
	}
	if len(box) < 4 || binary.BigEndian.Uint32(box) != sum(table, key, box[4:]) {
		return nil, fault.New(fault.Corrupt, "read journal", "record %s/%s fails its checksum", table, key).
			WithHelp("the disk returned other bytes than were written: move the journal directory away and start again; the agent gets a new journal id and waits for its old session to expire")
	}
	return box[4:], nil
}
