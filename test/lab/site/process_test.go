package site

import (
	"context"
	"errors"
	"io"
	"os"

	"path/filepath"
	"strings"

	"testing"
	"time"
)

// TestMain plays the daemons: "child FILE" writes its addresses and waits for its standard input to end.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		os.Exit(child(os.Args[2]))
	}
	os.Exit(m.Run())
}

func child(file string) int {
	if file == "fails" {
		os.Stderr.WriteString("cannot listen\n")
		return 3
	}
	if err := os.WriteFile(file, []byte(`{"api":"127.0.0.1:1"}`), 0o600); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 4
}

func newProcess(t *testing.T, file string) *Process {
	t.Helper()
	dir := t.TempDir()
	address := filepath.Join(dir, file)
	arg := address
	if file == "fails" {
		arg = file
	}
	p := &Process{Name: "child", LogPath: filepath.Join(dir, "log"), program: os.Args[0], args: []string{"child", arg}, address: address}
	t.Cleanup(p.Kill)
	return p
}

func TestProcessLives(t *testing.T) {
	p := newProcess(t, "address.json")
	if p.PID() != 0 {
		t.Error("a process that was not started has an id")
	}
	for range 2 { // it can be started again after its end
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var at struct{ API string }
		if err := p.Addresses(&at); err != nil || at.API != "127.0.0.1:1" {
			t.Errorf("Addresses: %+v, %v", at, err)
		}
		if err := p.Start(t.Context()); err == nil {
			t.Error("it was started twice")
		}
		p.Kill()
		if p.PID() != 0 || p.ExitCode() != -1 {
			t.Errorf("after Kill: id %d, exit code %d", p.PID(), p.ExitCode())
		}
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if p.PID() != 0 {
		t.Error("Stop left it running")
	}
}

// TestProcessDiesWithItsCord is what happens when the parent is killed: the pipe closes.
func TestProcessDiesWithItsCord(t *testing.T) {
	p := newProcess(t, "address.json")
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = p.cord.Close()
	<-p.Done()
	if p.ExitCode() != 4 {
		t.Errorf("exit code %d, want 4", p.ExitCode())
	}
}

func TestProcessFailsAtStart(t *testing.T) {
	p := newProcess(t, "fails")
	if err := p.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot listen") {
		t.Errorf("Start: %v, want what the process said", err)
	}
	p = newProcess(t, "address.json")
	p.args = []string{"child", filepath.Join(t.TempDir(), "elsewhere")} // never where it is looked for
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start: %v, want the deadline", err)
	}
	if p.PID() != 0 {
		t.Error("a process that did not come up was left running")
	}
}

func TestRunAndTail(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if _, err := run(t.Context(), log, os.Args[0], "child", "fails"); err == nil || !strings.Contains(err.Error(), "cannot listen") {
		t.Errorf("run: %v", err)
	}
	if got := Tail(log, 5); got != "cannot listen" {
		t.Errorf("Tail = %q", got)
	}
	if err := os.WriteFile(log, []byte(strings.Repeat("line\n", 10000)+"last\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(log, 2); got != "line\nlast" {
		t.Errorf("Tail = %q", got)
	}
}
