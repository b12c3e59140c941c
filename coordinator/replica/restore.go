package replica

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/upload"
	"github.com/farrier-project/farrier/pkg/fault"
)

// SaveSnapshot writes an archive of the state after the newest entry applied here to w. For all that was committed so far, wait
// for ReadIndex first.
func (r *Replica) SaveSnapshot(ctx context.Context, w io.Writer) (archive.Header, error) {
	v, applied := r.machine.Newest()
	return archive.Write(ctx, w, archive.Image{View: v, Applied: applied}, r.cfg.Clock.Now())
}

// RestoreSnapshot replaces the state of the whole cluster by an archive's, but for who belongs to it (state.KeepMembership). On
// the leader only. The archive is verified as a whole before anything changes, and must be of this cluster. The restored state
// has a higher generation than both the archive and the state that it replaces, in the same step: all sessions end, and no lock
// token is ever used again. With fault.UnknownOutcome it may have happened; after any other error it has not.
func (r *Replica) RestoreSnapshot(ctx context.Context, in io.Reader) (archive.Header, error) {
	const op = "restore snapshot"
	if _, ok := r.Leading(); !ok {
		return archive.Header{}, r.notLeader(op)
	}
	spool, err := archive.NewSpool(r.cfg.Dir)
	if err != nil {
		return archive.Header{}, fmt.Errorf("%s: %w", op, err)
	}
	defer spool.Close()
	a, s, err := archive.Read(ctx, in, r.cfg.MaxArchive, spool)
	if spool.Failed() != nil {
		return archive.Header{}, fmt.Errorf("%s: %w", op, spool.Failed())
	}
	if err != nil {
		return archive.Header{}, err
	}
	if id := s.View().Cluster().ID; a.Cluster != r.cfg.Cluster || id != r.cfg.Cluster {
		return archive.Header{}, fault.New(fault.Invalid, op, "the archive is of cluster %q, this is %q", a.Cluster, r.cfg.Cluster).
			WithHelp("a cluster whose coordinators are all lost is made anew by `farrier-coordinator init --from-archive FILE --key-file KEYS`")
	}
	verified, err := spool.Rewind()
	if err != nil {
		return archive.Header{}, fmt.Errorf("%s: %w", op, err)
	}
	err = upload.Send(ctx, verified, r.newGeneration(), func(ctx context.Context, k entry.Kind, content []byte) error {
		results, err := r.submit(ctx, k, content, 1)
		if err != nil {
			return err
		}
		return results[0].Err
	})
	if err != nil {
		return archive.Header{}, err
	}
	r.log.Warn("the state was restored from an archive", "index", a.Index, "generation", r.View().Cluster().Generation)
	return a, nil
}

// newGeneration is the command that goes with a restore.
func (r *Replica) newGeneration() command.Command {
	c := command.Command{
		Header: command.Header{Cluster: r.cfg.Cluster, At: r.cfg.Clock.Now(), Actor: "coordinator " + r.cfg.Member, Level: r.View().Cluster().Level},
		Body:   command.NewGeneration{Reason: "a snapshot was restored"},
	}
	rand.Read(c.Header.Seed[:]) // never fails: crypto/rand ends the process instead
	return c
}
