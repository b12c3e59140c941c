package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Table is one kind of record.
type Table uint8

// The tables.
const (
	_      Table = iota
	Runs         // by node: the last attempt and the highest token
	Boots        // by node: the authorised boot attempt
	Leases       // by hardware address: the IP leased
	Fences       // by node: the URI of the BMC session opened last
	endOfTables
)

var tableName = [...]string{Runs: "runs", Boots: "boots", Leases: "leases", Fences: "fences"} // read-only

// String is the table's name on disk.
func (t Table) String() string {
	if t > 0 && t < endOfTables {
		return tableName[t]
	}
	return fmt.Sprintf("table(%d)", uint8(t))
}

const (
	metaBucket = "meta"
	fileName   = "journal.db"
	lockName   = "lock"
	// MaxValue bounds one record. An inventory of 128 KiB, in base64 and with what is around it, fits.
	MaxValue = 512 << 10
	// MaxKey bounds a record's key, in bytes.
	MaxKey = 1 << 10
)

// Journal is an open journal directory.
type Journal struct {
	db          *bbolt.DB
	lock        *os.File
	id          [16]byte
	incarnation uint64
	writer
}

// Open locks dir, makes the journal if there is none, raises the incarnation and verifies every record.
// Locked: another process has the directory. Corrupt: a record fails its checksum, or the file is damaged.
func Open(dir string) (_ *Journal, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap("open journal", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	db, err := openDB(filepath.Join(dir, fileName))
	if err != nil {
		return nil, fault.New(fault.Corrupt, "open journal", "%s: %w", filepath.Join(dir, fileName), err).
			WithHelp("the file is damaged: move the directory away and start again; the agent gets a new journal id and waits for its old session to expire")
	}
	j := &Journal{db: db, lock: lock}
	j.commit = j.write
	if err := j.begin(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return j, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Wrap("open journal", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fault.New(fault.Locked, "open journal", "%s is in use by another process: %w", dir, err).
			WithHelp("stop the other agent, or give this one its own data directory"), f.Close())
	}
	return f, nil
}

// openDB opens the file. bbolt panics on some damage; that is an error here.
func openDB(path string) (db *bbolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged: %v", p)
		}
	}()
	return bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
}

// begin makes what is missing, raises the incarnation and verifies what is there.
func (j *Journal) begin() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Corrupt, "open journal", "damaged: %v", p)
		}
	}()
	err = j.db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists([]byte(metaBucket))
		if err != nil {
			return err
		}
		for t := Runs; t < endOfTables; t++ {
			if _, err := tx.CreateBucketIfNotExists([]byte(t.String())); err != nil {
				return err
			}
		}
		return j.identify(meta)
	})
	if err != nil {
		return fault.Wrap("open journal", err)
	}
	for t := Runs; t < endOfTables; t++ {
		if err := j.Each(t, func(string, []byte) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (j *Journal) identify(meta *bbolt.Bucket) error {
	id, err := unseal(metaBucket, "id", meta.Get([]byte("id")))
	if err != nil {
		return err
	}
	if id == nil {
		if _, err := rand.Read(j.id[:]); err != nil {
			return err
		}
		if err := meta.Put([]byte("id"), seal(metaBucket, "id", j.id[:])); err != nil {
			return err
		}
	} else if copy(j.id[:], id) != len(j.id) {
		return fault.New(fault.Corrupt, "read journal id", "%d bytes", len(id))
	}
	was, err := unseal(metaBucket, "incarnation", meta.Get([]byte("incarnation")))
	if err != nil {
		return err
	}
	if len(was) == 8 {
		j.incarnation = binary.BigEndian.Uint64(was)
	}
	j.incarnation++
	now := binary.BigEndian.AppendUint64(nil, j.incarnation)
	return meta.Put([]byte("incarnation"), seal(metaBucket, "incarnation", now))
}

// ID is the journal's random id, made with the directory.
func (j *Journal) ID() [16]byte { return j.id }

// Incarnation is how often the journal has been opened, this time included.
func (j *Journal) Incarnation() uint64 { return j.incarnation }

// Each calls fn with each record of the table, in the order of keys. value belongs to the callee.
func (j *Journal) Each(t Table, fn func(key string, value []byte) error) error {
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(t.String())).ForEach(func(k, boxed []byte) error {
			v, err := unseal(t.String(), string(k), boxed)
			if err != nil {
				return err
			}
			return fn(string(k), append([]byte(nil), v...))
		})
	})
	return fault.Wrap("read journal", err)
}

// Close writes what is pending and gives the directory back.
func (j *Journal) Close() error {
	return errors.Join(j.Flush(), j.db.Close(), j.lock.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.Wrap("sync journal directory", err)
	}
	return fault.Wrap("sync journal directory", errors.Join(d.Sync(), d.Close()))
}
