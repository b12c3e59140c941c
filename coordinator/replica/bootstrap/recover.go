package bootstrap

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// A cluster that is made anew from an archive does not know how long the old one went on after it. So that no token,
// position or index of the old one's is met again, it leaves out this much.
const (
	recoverGenerations = 64      // the old cluster may have restored snapshots that many times since
	recoverIndexes     = 1 << 32 // log entries since
)

// Lost is what an archive holds of a cluster whose members are all lost. It is verified as a whole.
type Lost struct {
	archive.Header
	state *apply.Applier
}

// ReadLost reads an archive of at most limit bytes, 0: archive.DefaultMax. Errors are fault.Corrupt and
// fault.TooLarge.
func ReadLost(ctx context.Context, in io.Reader, limit int64) (*Lost, error) {
	if limit == 0 {
		limit = archive.DefaultMax
	}
	a, s, err := archive.Read(ctx, in, limit, io.Discard)
	if err != nil {
		return nil, err
	}
	return &Lost{Header: a, state: apply.On(s)}, nil
}

// View is the state in the archive.
func (l *Lost) View() *state.View { return l.state.View() }

// Recover makes, once, the first member of the cluster that was lost: its state under a higher generation, so that all
// sessions have ended and every token is above every earlier one, and with more's changes. The old members are no part
// of it: should one come to life again, it is nobody's. address is its Raft address; l is used up.
func Recover(p home.Place, address string, at time.Time, l *Lost, more ...command.Body) error {
	const op = "recover cluster"
	if id := l.View().Cluster().ID; id != p.Cluster || id != l.Cluster || address == "" {
		return fault.New(fault.Invalid, op, "the archive is of cluster %q, not %q, or no Raft address is set", id, p.Cluster)
	}
	index := l.View().Index() + recoverIndexes
	bodies := []command.Body{command.NewGeneration{Reason: "the cluster was made anew from an archive", Skip: recoverGenerations}}
	l.View().Members(func(m *command.Member) bool {
		bodies = append(bodies, command.RemoveMember{ID: m.ID})
		return true
	})
	for _, body := range append(bodies, more...) {
		c := command.Command{Body: body, Header: command.Header{
			Cluster: p.Cluster, At: at, Actor: "coordinator " + p.Member, Level: l.View().Cluster().Level,
		}}
		rand.Read(c.Header.Seed[:]) // never fails: crypto/rand ends the process instead
		if res := l.state.Apply(index, c); res.Err != nil {
			return fault.Wrap(op, res.Err)
		}
	}
	return home.Create(p, func(h *home.Home) error {
		const term = 1
		if err := h.Log.SetTerm(term); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		sink, err := h.Snapshots.Create(raft.SnapshotVersionMax, index, term, alone(p, address), index, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		w := bufio.NewWriterSize(sink, 256<<10)
		if err := errors.Join((archive.Image{View: l.View(), Applied: index}).Write(w), w.Flush()); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", op, err), sink.Cancel())
		}
		return sink.Close()
	})
}
