package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	stopWait  = 6 * time.Second // for an orderly end before it is killed
	startWait = 20 * time.Second
	pollEvery = 5 * time.Millisecond // of an address file
)

// Process is one daemon. It is safe for concurrent use.
type Process struct {
	Name    string
	LogPath string // standard output and error of all its lives
	program string
	args    []string
	address string                // file that it writes when its listeners are bound
	start   func(*exec.Cmd) error // where it runs; nil: here

	mu    sync.Mutex // guards the fields below
	cmd   *exec.Cmd
	cord  io.Closer     // write end of its standard input
	done  chan struct{} // closed when it has ended
	state *os.ProcessState
}

// Start runs the process and waits until it has written its addresses. It is an error when it runs already.
func (p *Process) Start(ctx context.Context) error {
	if err := p.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	done := p.Done()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		var into map[string]any
		if p.Addresses(&into) == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("%s ended at its start: %s", p.Name, p.Tail(8))
		case <-ctx.Done():
			p.Kill()
			return fmt.Errorf("%s does not come up: %w: %s", p.Name, ctx.Err(), p.Tail(8))
		case <-tick.C:
		}
	}
}

func (p *Process) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done != nil {
		select {
		case <-p.done:
		default:
			return fmt.Errorf("%s runs already", p.Name)
		}
	}
	if err := os.Remove(p.address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(p.program, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent, which stops its children in order
	cord, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	start := p.start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.cord, p.done, p.state = cmd, cord, done, nil
	go func() {
		_ = cmd.Wait()
		p.mu.Lock()
		p.state = cmd.ProcessState
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// Addresses reads what the process wrote of its listeners.
func (p *Process) Addresses(into any) error {
	b, err := os.ReadFile(p.address)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// Done is closed when the process of now has ended; it is closed already when none was started.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		c := make(chan struct{})
		close(c)
		return c
	}
	return p.done
}

// PID is the process id, 0 when it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.state != nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// ExitCode is that of the life that ended last, -1 when it was killed or none has ended.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return -1
	}
	return p.state.ExitCode()
}

// Kill is kill -9: it waits until the process is gone.
func (p *Process) Kill() { p.signal(syscall.SIGKILL, 0) }

// Stop asks the process to end and kills it if it does not.
func (p *Process) Stop() { p.signal(syscall.SIGTERM, stopWait) }

// Pause and Resume stop and continue the process: it hangs, and its sockets stay open.
func (p *Process) Pause() { p.send(syscall.SIGSTOP) }

// Resume ends Pause.
func (p *Process) Resume() { p.send(syscall.SIGCONT) }

func (p *Process) send(s syscall.Signal) {
	if pid := p.PID(); pid != 0 {
		_ = syscall.Kill(pid, s)
	}
}

func (p *Process) signal(s syscall.Signal, wait time.Duration) {
	p.send(s)
	done := p.Done()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			p.send(syscall.SIGKILL)
		}
	}
	<-done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cord != nil {
		_ = p.cord.Close()
	}
}

// Tail is the end of the log: at most n lines.
func (p *Process) Tail(n int) string { return Tail(p.LogPath, n) }

// Tail is the end of a file: at most n lines of its last 16 KiB.
func Tail(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return "no log"
	}
	defer f.Close()
	const window = 16 << 10
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-window), io.SeekStart)
	}
	b, _ := io.ReadAll(io.LimitReader(f, window))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// run runs a command to its end with its output in a log, and returns what it printed.
func run(ctx context.Context, logPath, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if f, ferr := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); ferr == nil {
		_, _ = f.Write(append(out.Bytes(), errs.Bytes()...))
		_ = f.Close()
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
