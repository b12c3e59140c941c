package plan

import (
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/job"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/state"
)

// MaxDue bounds one answer of Due; what is left is in the next.
const MaxDue = 256

// Due is the commands that elapsed time has made due: a Timeout for each attempt whose deadline has passed.
// Proposing one twice is harmless: Apply checks it again.
func Due(v *state.View) []command.Body {
	var due []command.Body
	v.Due(v.Elapsed(), MaxDue, func(d state.DueAttempt) bool {
		st := d.Flow.Step()
		due = append(due, command.Timeout{
			Node: node.ID(d.Flow.Node), Flow: d.Flow.ID, Step: d.Flow.Cur, Attempt: st.Attempt.N, Deadline: d.Deadline,
		})
		return true
	})
	return due
}

// Stalled is a Resume for each open flow that has no open attempt although nothing stands in its way. Apply goes
// on by itself when what blocked a flow is gone, so the list is empty but for flows that an earlier level left;
// a new leader proposes it once.
func Stalled(v *state.View) []command.Body {
	var due []command.Body
	v.OpenFlows(func(f *flow.Flow) bool {
		if job.Resumable(v, f) {
			due = append(due, command.Resume{Node: node.ID(f.Node), Flow: f.ID})
		}
		return len(due) < MaxDue
	})
	return due
}
