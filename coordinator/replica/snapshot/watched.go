package snapshot

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Watched is a store that tells when a snapshot is in place. It is safe for concurrent use as far as the store beneath is.
type Watched struct {
	raft.SnapshotStore
	taken   func(Taken)
	running atomic.Bool // raft runs
	failed  error       // of Open before it did
}

// Taken is a snapshot that is in place.
type Taken struct {
	Index uint64
	Bytes int64
	Took  time.Duration
}

// Watch wraps a store. taken is called by who took or received the snapshot.
func Watch(s raft.SnapshotStore, taken func(Taken)) *Watched {
	return &Watched{SnapshotStore: s, taken: taken}
}

// RaftRuns says that raft has started.
func (w *Watched) RaftRuns() { w.running.Store(true) }

// Failed is why the newest snapshot could not be opened before raft ran: it keeps that to itself.
func (w *Watched) Failed() error { return w.failed }

// Newest is how many bytes the newest snapshot has, 0 when there is none or nobody can tell.
func (w *Watched) Newest() int64 {
	list, err := w.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return list[0].Size
}

// Open implements raft.SnapshotStore.
func (w *Watched) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, rc, err := w.SnapshotStore.Open(id)
	if err != nil && !w.running.Load() {
		w.failed = err
	}
	return meta, rc, err
}

// Create implements raft.SnapshotStore.
func (w *Watched) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	k, err := w.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &watchedSink{SnapshotSink: k, index: index, began: time.Now(), taken: w.taken}, nil
}

type watchedSink struct {
	raft.SnapshotSink
	index uint64
	began time.Time
	size  int64
	taken func(Taken)
}

func (k *watchedSink) Write(p []byte) (int, error) {
	n, err := k.SnapshotSink.Write(p)
	k.size += int64(n)
	return n, err
}

// Close implements raft.SnapshotSink; raft calls it again after Persist.
func (k *watchedSink) Close() error {
	err := k.SnapshotSink.Close()
	if err == nil && k.taken != nil {
		k.taken(Taken{Index: k.index, Bytes: k.size, Took: time.Since(k.began)})
		k.taken = nil
	}
	return err
}
