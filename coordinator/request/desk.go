package request

import (
	"context"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
)

// Proposer puts commands in the log. It answers once they are applied here; each has its own result, whose Err is
// the command's refusal. The error is of the proposal as a whole: NotLeader, NoQuorum, UnknownOutcome.
type Proposer interface {
	Propose(ctx context.Context, cmds ...command.Command) ([]command.Result, error)
}

// Queue proposes what may meet a held lock.
type Queue interface {
	// ProposeQueued proposes cmd, and on fault.Locked waits in the node's queue for its turn, up to wait. A
	// negative wait lasts as long as ctx.
	ProposeQueued(ctx context.Context, cmd command.Command, wait time.Duration) (command.Result, error)
	// ClientSeen keeps a client session alive.
	ClientSeen(client string)
}

// Reader reads the replicated state.
type Reader interface {
	View() *state.View
	WaitApplied(ctx context.Context, index uint64) error
	// Leading tells whether this member leads and has applied its term's barrier.
	Leading() (term uint64, ok bool)
}

// Config is what a Desk needs. All fields must be set.
type Config struct {
	Member   string // this member's name
	Reader   Reader
	Proposer Proposer
	Queue    Queue
	Leader   *leader.Finder
	Clock    clock.Clock
}

// Desk is where requests are dealt with. It is safe for concurrent use.
type Desk struct {
	cfg   Config
	guard guard
}

// New is a Desk; Guard must run.
func New(cfg Config) *Desk {
	return &Desk{cfg: cfg, guard: guard{held: map[*heldCall]struct{}{}}}
}

// View is the state as it is here, which may be behind.
func (d *Desk) View() *state.View { return d.cfg.Reader.View() }

// Leading tells whether this member leads.
func (d *Desk) Leading() bool {
	_, ok := d.cfg.Reader.Leading()
	return ok
}

// Seen keeps the client session alive that the request's id names, if it has one.
func (d *Desk) Seen(ctx context.Context) {
	if id := ID(ctx); !id.IsZero() {
		d.cfg.Queue.ClientSeen(id.Client)
	}
}
