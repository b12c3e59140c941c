package fatal

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/farrier-project/farrier/pkg/fault"
)

// ExitCode is what a process ends with after an Error: the supervisor restarts it.
const ExitCode = 70

// Error is why a member must stop. It is never recovered from within the process.
type Error struct {
	ExitCode int
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("coordinator must stop: %v", e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Latch keeps the first fatal error of a member. It is safe for concurrent use.
type Latch struct {
	once  sync.Once
	err   atomic.Pointer[Error]
	fired chan struct{}
	log   *slog.Logger
	cut   func()
}

// NewLatch makes an open latch. cut takes the member off its peers; it is called at most once, from any goroutine.
func NewLatch(log *slog.Logger, cut func()) *Latch {
	return &Latch{fired: make(chan struct{}), log: log, cut: cut}
}

// Fail latches err and answers the *Error that was latched, which may be of an earlier one.
func (l *Latch) Fail(err error) error {
	l.once.Do(func() {
		l.err.Store(&Error{ExitCode: ExitCode, Err: err})
		l.log.Error("coordinator must stop", "err", err)
		l.cut()
		close(l.fired)
	})
	return l.err.Load()
}

// Failed is the latched *Error, nil while there is none.
func (l *Latch) Failed() error {
	if e := l.err.Load(); e != nil {
		return e
	}
	return nil
}

// Fired is closed when an error was latched and the member is cut off.
func (l *Latch) Fired() <-chan struct{} { return l.fired }

// Corrupt is the error for stored bytes that cannot be believed: fault.Corrupt, with the file and what to do.
func Corrupt(file, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, "read "+file, format, args...).WithHelp("this member's copy is damaged, the others' are not touched: "+
		"run `farrier-coordinator rejoin` here, which takes the member out of the cluster and brings it back empty; a cluster of one is made "+
		"anew from an archive by `farrier-coordinator init --from-archive FILE --key-file KEYS`; do not edit or delete %s by hand", file)
}
