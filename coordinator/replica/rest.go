package replica

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
)

// The log's pages are given back when in one look no more entries than these have come; ticks alone are 40.
const (
	pagesLook = 10 * time.Second
	pagesRest = 200
)

// runPages gives the log's pages back whenever the log is at rest.
func (r *Replica) runPages(ctx context.Context) {
	t := time.NewTicker(pagesLook)
	defer t.Stop()
	last := r.raft.LastIndex()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		was := last
		if last = r.raft.LastIndex(); last-was <= pagesRest {
			r.home.ReturnPages()
		}
	}
}

// snapshotLook is how often the log's growth is looked at.
const snapshotLook = 5 * time.Second

// snapshotRest is how many entries in one look are rest; ticks alone are 20.
const snapshotRest = 100

// runSnapshots takes a snapshot when the log has grown by many bytes. raft counts entries, and an entry holds up to
// hundreds of commands: an import of 100,000 nodes is too few entries for it.
func (r *Replica) runSnapshots(ctx context.Context) {
	t := time.NewTicker(snapshotLook)
	defer t.Stop()
	last := r.raft.LastIndex()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		was := last
		last = r.raft.LastIndex()
		r.keepBehind(last)
		if !r.pace().Due(r.home.Log.Grown(), last-was <= snapshotRest, r.home.Snapshots.Newest) {
			continue
		}
		taken := make(chan error, 1)
		go func(f raft.SnapshotFuture) { taken <- f.Error() }(r.raft.Snapshot()) // raft answers it, when it shuts down too
		select {
		case <-ctx.Done():
			return
		case err := <-taken:
			if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				r.log.Warn("no snapshot was taken", "err", err)
			}
		}
	}
}

// keepBehind bounds the entries that stay behind the next snapshot, for members that come back, by bytes: raft counts them,
// and 10,240 entries of an import are gigabytes, all of which the next start checks.
func (r *Replica) keepBehind(last uint64) {
	rc := r.raft.ReloadableConfig()
	n := r.pace().Behind(r.home.Log.Grown(), last-min(r.home.Log.Floor(), last))
	if n == rc.TrailingLogs {
		return
	}
	rc.TrailingLogs = n
	if err := r.raft.ReloadConfig(rc); err != nil {
		r.log.Warn("the length of the log was not bounded", "err", err)
	}
}

func (r *Replica) pace() snapshot.Pace {
	return snapshot.Pace{Bytes: r.cfg.SnapshotBytes, Entries: r.cfg.TrailingLogs}
}
