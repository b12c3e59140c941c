package replica

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/pkg/fault"
)

// looks is how often the watchdog looks in the time after which it bites. It counts looks, not time: a process that was
// stopped, or a machine that slept, has not seen its disk hang.
const looks = 12

// runWatchdog ends a member whose disk hangs. raft sends and answers heartbeats beside its writes, so that a leader with such
// a disk leads on and nothing commits, and such a follower counts as present.
func (r *Replica) runWatchdog(ctx context.Context) error {
	t := time.NewTicker(r.cfg.Watchdog / looks)
	defer t.Stop()
	var w watch
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		w.look(r.sight())
		var err *fault.Error
		switch {
		case w.hung >= looks:
			err = fault.New(fault.Unavailable, "watch the log", "a write to %s did not end for %v", r.home.Log.File(), r.cfg.Watchdog)
		case w.stuck >= looks:
			err = fault.New(fault.Unavailable, "watch the log", "nothing was committed for %v after index %d, which a majority is past", r.cfg.Watchdog, w.commit)
		default:
			continue
		}
		return r.latch.Fail(err.WithHelp("the disk under %s hangs, most likely: the other members go on, and this one reads all of it again when it starts", r.home.Log.File()))
	}
}

// sight is what the watchdog sees at one look.
type sight struct {
	write  uint64 // oldest write that has not ended, by its number; 0 is none
	commit uint64
	due    bool // this member leads, and its newest entry ought to be committed: a majority has it, and nothing waits to be applied
}

// sight looks. A leader whose entry few others have waits for them, be it that they are gone or that they are sent a
// snapshot: that is no fault of its disk. Nor is an entry that takes long to apply.
func (r *Replica) sight() sight {
	s := sight{write: r.home.Log.OldestWrite(), commit: r.raft.CommitIndex()}
	last := r.raft.LastIndex()
	s.due = r.raft.State() == raft.Leader && last > s.commit && r.machine.Index() >= r.home.Log.Visible(s.commit) &&
		r.trans.Stored(r.voters(), r.raft.CurrentTerm(), last)
	return s
}

// watch counts the looks in a row at which nothing had moved.
type watch struct {
	sight
	hung, stuck int
}

func (w *watch) look(now sight) {
	was := w.sight
	w.sight = now
	if now.write == 0 || now.write != was.write {
		w.hung = 0
	} else {
		w.hung++
	}
	if !now.due || !was.due || now.commit != was.commit {
		w.stuck = 0
	} else {
		w.stuck++
	}
}
