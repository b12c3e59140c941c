package replica

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/farrier-project/farrier/pkg/fault"
)

// ExitCode is what a process ends with after a Fatal: the supervisor restarts it.
const ExitCode = 70

// Fatal is why a member must stop. Run returns it; it is never recovered from within the process.
type Fatal struct {
	ExitCode int
	Err      error
}

func (f *Fatal) Error() string { return fmt.Sprintf("coordinator must stop: %v", f.Err) }

func (f *Fatal) Unwrap() error { return f.Err }

// latch keeps the first fatal error. What happens at it happens once.
type latch struct {
	once  sync.Once
	err   atomic.Pointer[Fatal]
	fired chan struct{}
	log   *slog.Logger
	close func() // cuts the member off from its peers
}

func newLatch(log *slog.Logger) *latch {
	return &latch{fired: make(chan struct{}), log: log, close: func() {}}
}

// fail latches err and answers the error that was latched, which may be an earlier one.
func (l *latch) fail(err error) error {
	l.once.Do(func() {
		l.err.Store(&Fatal{ExitCode: ExitCode, Err: err})
		l.log.Error("coordinator must stop", "err", err)
		l.close()
		close(l.fired)
	})
	return l.err.Load()
}

// failed is the latched error, nil while there is none.
func (l *latch) failed() error {
	if f := l.err.Load(); f != nil {
		return f
	}
	return nil
}

// corrupt is the error for stored bytes that cannot be believed.
func corrupt(file, format string, args ...any) *fault.Error {
	return fault.New(fault.Corrupt, "read "+file, format, args...).WithHelp("this member's copy is damaged, the others' are not touched: "+
		"run `farrier-coordinator rejoin` here, which takes the member out of the cluster and brings it back empty; a cluster of one is made "+
		"anew from an archive by `farrier-coordinator init --from-archive FILE --key-file KEYS`; do not edit or delete %s by hand", file)
}
