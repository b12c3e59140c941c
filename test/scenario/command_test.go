package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answer is what a run of the command line left.
type answer struct {
	args     []string
	out, err string
	status   int
}

// command prepares the real command line, with the operator's configuration.
func (k *kit) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "farrier"), args...)
	cmd.Env = append(os.Environ(), "FARRIER_CONFIG="+k.Operator, "TZ=UTC")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// farrier runs the command line to its end.
func (k *kit) farrier(args ...string) answer {
	k.t.Helper()
	return k.finish(k.begin(args...))
}

// running is a run of the command line that has not ended.
type running struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

func (k *kit) begin(args ...string) *running {
	k.t.Helper()
	r := &running{cmd: k.command(k.ctx(), args...)}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	return r
}

func (k *kit) finish(r *running) answer {
	k.t.Helper()
	err := r.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		k.t.Fatalf("farrier %s: %v", strings.Join(r.cmd.Args[1:], " "), err)
	}
	return answer{args: r.cmd.Args[1:], out: r.out.String(), err: r.err.String(), status: r.cmd.ProcessState.ExitCode()}
}

// done runs the command line and fails the test unless it succeeds.
func (k *kit) done(args ...string) answer {
	k.t.Helper()
	a := k.farrier(args...)
	a.succeeded(k.t)
	return a
}

func (a answer) String() string { return "farrier " + strings.Join(a.args, " ") }

func (a answer) succeeded(t *testing.T) {
	t.Helper()
	if a.status != 0 {
		t.Fatalf("%s: status %d\n%s%s", a, a.status, a.out, a.err)
	}
}

// refused checks a failure of the command line: its status, one line that says what is wrong, and advice.
func (a answer) refused(t *testing.T, status int, says ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: status %d instead of %d", a, a.status, status)
	}
	if n := strings.Count("\n"+a.err, "\nfarrier: "); n != 1 {
		t.Errorf("%s: %d errors instead of one", a, n)
	}
	if n := strings.Count(a.err, "  → "); n != 1 || !strings.HasSuffix(a.err, "\n") {
		t.Errorf("%s: %d pieces of advice instead of one", a, n)
	}
	if a.out != "" {
		t.Errorf("%s: a failure wrote to standard output: %q", a, a.out)
	}
	for _, text := range says {
		if !strings.Contains(a.err, text) {
			t.Errorf("%s: the error does not say %q", a, text)
		}
	}
	if strings.Contains(a.err, "password-of-") {
		t.Errorf("%s: the error tells a password", a)
	}
	t.Logf("%s\n%s", a, a.err)
}

// decode reads the answer as JSON.
func (a answer) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.out), into); err != nil {
		t.Fatalf("%s: %v in %q", a, err, a.out)
	}
}

// until waits for a condition that no event tells of.
func (k *kit) until(what string, met func(ctx context.Context) bool) {
	k.t.Helper()
	ctx := k.ctx()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !met(ctx) {
		select {
		case <-ctx.Done():
			k.t.Fatalf("%s: it never was", what)
		case <-tick.C:
		}
	}
}
