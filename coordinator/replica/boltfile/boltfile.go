package boltfile

import (
	"fmt"
	"os"
	"syscall"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	bolt "go.etcd.io/bbolt"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// File is an open log file. It is raft's LogStore and StableStore, safe for concurrent use; close it.
type File struct {
	*raftboltdb.BoltStore
	path string
}

// Create makes an empty file. Check it after it was closed, before anything depends on it.
func Create(path string) (*File, error) { return open(path) }

// Open checks a file as a whole and opens it. Errors are fault.Corrupt, and fault.Busy when another process uses it.
func Open(path string) (*File, error) {
	if err := prepare(path); err != nil {
		return nil, err
	}
	if err := Check(path); err != nil {
		return nil, err
	}
	f, err := open(path)
	if err != nil {
		return nil, fatal.Corrupt(path, "%w", err)
	}
	return f, nil
}

// prepare fails with fault.Busy when another process has the file open, and makes it private.
func prepare(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fatal.Corrupt(path, "%w", err)
	}
	defer f.Close() // which ends the lock: bbolt takes its own
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fault.New(fault.Busy, "open "+path, "another process uses it: %w", err).
			WithHelp("stop the other coordinator first")
	}
	return f.Chmod(0o600)
}

// open opens the file with bbolt. The freelist is not written: it would be rewritten as a whole in each commit after a burst.
func open(path string) (_ *File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bbolt: %v", p)
		}
	}()
	b, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bolt.Options{
		Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	}})
	if err != nil {
		return nil, err
	}
	return &File{BoltStore: b, path: path}, nil
}
