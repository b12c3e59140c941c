package docs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/test/lab/site"
)

// daemon is one run of a unit.
type daemon struct {
	cmd  *exec.Cmd
	cord io.Closer
	log  string
	done chan struct{}
}

// stopWait is how long a daemon may take to end in order.
const stopWait = 10 * time.Second

// start is `systemctl start`: it checks the unit, runs its command, and waits until the daemon serves.
func (w *world) start(h *host, name string) error {
	text, ok := h.files["/etc/systemd/system/"+name+".service"]
	if !ok {
		return fmt.Errorf("no block is the unit %s.service", name)
	}
	u, err := parseUnit(text)
	if err != nil {
		return fmt.Errorf("unit %s: %w", name, err)
	}
	if err := h.check(u); err != nil {
		return fmt.Errorf("unit %s: %w", name, err)
	}
	address := filepath.Join(h.dir, name+".address")
	if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
		return err
	}
	var args []string
	for _, a := range u.exec {
		args = append(args, w.argument(h, a))
	}
	d := &daemon{cmd: exec.Command(args[0], append(args[1:], "--address-file", address, "--exit-with-stdin")...), log: filepath.Join(h.dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the daemon has its own
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if d.cord, err = d.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	h.units[name] = d
	w.until(name+" on "+h.name+" serves", func(context.Context) bool {
		select {
		case <-d.done:
			w.t.Fatalf("%s on %s ended at its start:\n%s", name, h.name, site.Tail(d.log, 10))
		default:
		}
		_, err := os.Stat(address)
		return err == nil
	})
	return w.settled(h, name)
}

// settled waits until the others see the daemon, and makes the test's client once there is an operator.
func (w *world) settled(h *host, name string) error {
	if operator := h.dir + "/etc/farrier/operator"; w.client == nil {
		if _, err := os.Stat(operator); err != nil {
			return fmt.Errorf("init left no operator in /etc/farrier/operator: %w", err)
		}
		w.open(operator)
	}
	w.until(name+" on "+h.name+" is there", func(ctx context.Context) bool {
		if name == "farrier-agent" {
			return slices.Contains(w.agents(ctx), h.name)
		}
		res, err := w.client.Cluster.GetCluster(ctx, &farrierv1.GetClusterRequest{})
		return err == nil && slices.ContainsFunc(res.GetMembers(), func(m *farrierv1.Member) bool { return m.GetId() == h.name && m.GetVoter() })
	})
	return nil
}

// agents are those with a session.
func (w *world) agents(ctx context.Context) (live []string) {
	res, err := w.client.Agents.ListAgents(ctx, &farrierv1.ListAgentsRequest{})
	if err != nil {
		return nil
	}
	for _, a := range res.GetAgents() {
		if a.GetState() == "live" {
			live = append(live, a.GetName())
		}
	}
	return live
}

// halt is `systemctl stop`.
func (h *host) halt(name string) error {
	d := h.units[name]
	if d == nil {
		return fmt.Errorf("%s does not run on %s", name, h.name)
	}
	delete(h.units, name)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	t := time.AfterFunc(stopWait, func() { _ = d.cmd.Process.Kill() })
	defer t.Stop()
	<-d.done
	_ = d.cord.Close() // Wait has closed it, or the process never read it
	return nil
}

// stop ends all daemons, and tells their last words if the test failed.
func (w *world) stop() {
	for _, h := range w.hosts {
		for name, d := range h.units {
			if w.t.Failed() {
				w.t.Logf("--- %s on %s\n%s", name, h.name, site.Tail(d.log, 15))
			}
			_ = h.halt(name)
		}
	}
	if w.t.Failed() && w.rack != nil {
		w.t.Logf("--- console of %s\n%s", nodeName, site.Tail(w.rack.machine.ConsolePath(), 15))
	}
}

// exec runs a command line of the page on the host, to its end.
func (w *world) exec(h *host, args []string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd, err := w.prepare(ctx, h, args)
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s%s", err, out.String(), errs.String())
	}
	return out.String(), nil
}

// prepare makes the command with all substitutions.
func (w *world) prepare(ctx context.Context, h *host, args []string) (*exec.Cmd, error) {
	program := args[0]
	if h.person {
		program = filepath.Join(binaries, program) // somebody gave them to her
	} else if program = h.dir + "/usr/local/bin/" + program; !exists(program) {
		return nil, fmt.Errorf("no command installed %s on %s", args[0], h.name)
	}
	run := []string{}
	for i, a := range args[1:] {
		switch args[i] { // the flag before it
		case "--sha256":
			a = w.rack.image.sha256
		case "--reason":
			a = "a test of the page"
		}
		if a = w.argument(h, a); strings.Contains(a, "…") {
			return nil, fmt.Errorf("nothing here says what %q stands for", a)
		}
		run = append(run, a)
	}
	cmd := exec.CommandContext(ctx, program, run...)
	cmd.Env = []string{"HOME=" + h.home(), "PATH=/usr/bin:/bin"}
	if !h.person { // the default, /etc/farrier/operator, is no path of this host
		cmd.Env = append(cmd.Env, "FARRIER_CONFIG="+h.dir+"/etc/farrier/operator")
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopWait
	return cmd, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
