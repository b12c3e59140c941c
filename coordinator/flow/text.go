package flow

import "fmt"

var kindText = [...]string{ // read-only; part of the API (Flow.kind)
	Verify: "verify", Inspect: "inspect", Clean: "clean", Deploy: "deploy", Rebuild: "rebuild", Undeploy: "undeploy",
	Power: "power",
}

// String is the kind's text in the API.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindText) {
		return kindText[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind reads a kind's text; ok is false for unknown text.
func ParseKind(text string) (k Kind, ok bool) {
	for k := Verify; k <= Power; k++ {
		if kindText[k] == text {
			return k, true
		}
	}
	return 0, false
}

var statusText = [...]string{ // read-only; part of the API (Step.state)
	Pending: "pending", Running: "running", Done: "done", Failed: "failed", Aborted: "aborted", Skipped: "skipped",
}

// String is the status's text in the API. An open flow's text is "open": see Flow.State.
func (s Status) String() string {
	if int(s) < len(statusText) {
		return statusText[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Open tells whether the flow is not over.
func (f *Flow) Open() bool { return f.Status == Running }

// State is the flow's status as the API has it: open, done, failed, aborted.
func (f *Flow) State() string {
	if f.Open() {
		return "open"
	}
	return f.Status.String()
}

// Failing tells whether the flow has failed and runs its cleanup steps.
func (f *Flow) Failing() bool { return f.Open() && f.Error != "" }

// Queued tells whether the flow waits for a concurrency limit: it has done nothing yet.
func (f *Flow) Queued() bool { return f.Open() && f.Phase == 0 }

// Step is the step in work, nil when there is none.
func (f *Flow) Step() *Step {
	if f.Cur < 0 || f.Cur >= len(f.Steps) {
		return nil
	}
	return &f.Steps[f.Cur]
}

// FullName is interface.step, as in "deploy.write_image".
func (s *Step) FullName() string { return s.Interface + "." + s.Name }

// Over tells whether the step will not run again by itself.
func (s *Step) Over() bool { return s.Status != Pending && s.Status != Running }
