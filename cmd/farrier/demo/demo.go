package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/test/lab/machine"
	"github.com/farrier-project/farrier/test/lab/site"
)

// Options say how the demonstration runs.
type Options struct {
	Dir      string        // everything it writes; default .farrier-demo
	Bin      string        // directory of the binaries; default that of the running program
	Machines int           // 1 to 16; default 4, and 1 with VM
	VM       bool          // machines that QEMU emulates; this process is in namespaces of its own (netns.Enter)
	Timeout  time.Duration // for all machines to become active, from the start of the daemons; default 120 s, and 300 s with VM
	Stay     bool          // go on until the context ends
	Out      io.Writer
}

const (
	maxMachines = 16
	stagger     = time.Second // between the machines' starts, as somebody would enrol them one after the other
	tailLines   = 5           // of each log, on failure
)

// Run is the demonstration. It returns when every machine is active and its disk compared, or, with Stay, when ctx
// ends after that; nothing it started is left running.
func Run(ctx context.Context, o Options) error {
	o, err := o.complete()
	if err != nil {
		return err
	}
	release, err := claim(o.Dir)
	if err != nil {
		return err
	}
	defer release()
	d := &demo{o: o, began: time.Now(), dir: filepath.Join(o.Dir, "run")}
	d.say("Farrier demonstration: real daemons, %s machines. Everything it writes is in %s", d.kind(), o.Dir)
	if err := d.binaries(ctx); err != nil {
		return err
	}
	d.began = time.Now()
	cfg := site.Config{
		Dir: d.dir, Bin: o.Bin, Images: filepath.Join(o.Dir, "images"), Machines: o.Machines, Profile: "default",
		OnStart: d.started, OnMachine: d.machineEvent,
	}
	if o.VM {
		cfg.Images = filepath.Join(d.dir, "images") // each run makes its own: they go with it
		if cfg.Rack, err = newRack(o.Bin); err != nil {
			return err
		}
	}
	late := fmt.Errorf("not every machine was active within %s", o.Timeout)
	limited, cancel := context.WithTimeoutCause(ctx, o.Timeout, late)
	defer cancel()
	s, err := site.Start(limited, cfg)
	if err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", late, err)
		}
		return fault.Wrap("start the demonstration", fault.New(fault.Unavailable, "", "%w", err).WithHelp("the logs are in %s", d.dir))
	}
	d.site = s
	defer s.Close()
	if err := d.story(limited); err != nil {
		if ctx.Err() != nil {
			return fault.New(fault.Aborted, "demo", "ended before every machine was active")
		}
		return err
	}
	d.next(ctx)
	if o.Stay {
		return d.stay(ctx)
	}
	return nil
}

func (o Options) complete() (Options, error) {
	if o.Dir == "" {
		o.Dir = ".farrier-demo"
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fault.New(fault.Invalid, "demo", "%w", err)
	}
	o.Dir = dir
	if o.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return o, fault.New(fault.Unavailable, "find own program", "%w", err)
		}
		o.Bin = filepath.Dir(exe)
	}
	if o.Machines == 0 {
		if o.Machines = 4; o.VM {
			o.Machines = 1
		}
	}
	if o.Machines < 1 || o.Machines > maxMachines {
		return o, fault.New(fault.Invalid, "demo", "%d machines is not between 1 and %d", o.Machines, maxMachines)
	}
	if o.Timeout == 0 {
		if o.Timeout = 120 * time.Second; o.VM {
			o.Timeout = 300 * time.Second
		}
	}
	return o, nil
}

// claim takes the directory for this process and clears what an earlier run left in it, but for the image.
func claim(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fault.New(fault.Invalid, "make demo directory", "%w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fault.New(fault.Invalid, "lock demo directory", "%w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fault.New(fault.Busy, "lock demo directory", "another demonstration runs in %s", dir).WithHelp("end it, or choose another directory with --dir")
	}
	run := filepath.Join(dir, "run")
	if err := errors.Join(os.RemoveAll(run), os.MkdirAll(run, 0o755)); err != nil {
		lock.Close()
		return nil, fault.New(fault.Invalid, "clear demo directory", "%w", err)
	}
	return func() { lock.Close() }, nil
}

// binaries finds the daemons beside this program, and builds them when this is a checkout with Go.
func (d *demo) binaries(ctx context.Context) error {
	packages := map[string]string{"farrier-coordinator": "./coordinator", "farrier-agent": "./agent", "farrier-ramdisk": "./ramdisk-agent"}
	for name, pkg := range packages {
		path := filepath.Join(d.o.Bin, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		began := time.Now()
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, pkg)
		cmd.Dir = filepath.Dir(d.o.Bin)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fault.New(fault.NotFound, "find "+name, "it is not in %s and cannot be built: %w: %.400s", d.o.Bin, err, out).
				WithHelp("run `make build`, or name the directory of the binaries with --bin")
		}
		d.say("built %s in %s", name, seconds(time.Since(began)))
	}
	return nil
}

// story takes every machine from unknown to active and compares its disk with the image.
func (d *demo) story(ctx context.Context) error {
	list, err := d.site.Client.Nodes.ListNodes(ctx, &farrierv1.ListNodesRequest{PageSize: 1})
	if err != nil {
		return err
	}
	d.watch(list.GetIndex())
	subjects, err := d.subjects()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx) // one failure is enough to stop
	for i, m := range subjects {
		g.Go(func() error {
			if err := pause(ctx, time.Duration(i)*stagger); err != nil {
				return d.explain(ctx, m, err)
			}
			if err := d.deploy(ctx, m); err != nil {
				return d.explain(ctx, m, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// verbs take a machine from enroll to active; each is over when the node reaches ok or failed.
var verbs = []struct{ verb, ok, failed string }{ // read-only
	{"manage", "manageable", "enroll"},
	{"inspect", "manageable", "inspect failed"},
	{"provide", "available", "clean failed"},
	{"active", "active", "deploy failed"},
}

func (d *demo) deploy(ctx context.Context, m *subject) error {
	began := time.Now()
	states := d.follow(m.name)
	_, err := d.site.Client.Nodes.CreateNode(ctx, &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{
		Name: m.name, Driver: "redfish", Group: "rack1", DriverInfo: m.bmc.DriverInfo(),
		Ports: []*farrierv1.Port{{Address: m.mac, Ip: m.ip.String(), PxeEnabled: true}},
	}})
	if err != nil {
		return err
	}
	for _, v := range verbs {
		req := &farrierv1.SetProvisionStateRequest{Node: m.name, Verb: v.verb}
		if v.verb == "active" {
			req.Deploy = &farrierv1.DeployArgs{Image: m.image, Hostname: m.name, UserData: []byte(m.userData)}
		}
		if _, err := d.site.Client.Nodes.SetProvisionState(ctx, req); err != nil {
			return err
		}
		if err := until(ctx, states, v.ok, v.failed); err != nil {
			return fmt.Errorf("%s: %w", v.verb, err)
		}
	}
	d.line(m.name, "active", d.kind()+" machine, after "+seconds(time.Since(began))+", "+seconds(time.Since(d.began))+" from the start of the daemons", 0)
	return m.check(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func until(ctx context.Context, states <-chan string, ok, failed string) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s := <-states:
			switch s {
			case ok:
				return nil
			case failed, "error":
				return errFailed
			}
		}
	}
}

var errFailed = errors.New("the work failed")

// explain adds to a failure what the node says and where to look.
func (d *demo) explain(ctx context.Context, m *subject, cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(context.Cause(ctx), context.Canceled) {
		return fault.New(fault.Aborted, "deploy "+m.name, "stopped: another machine failed, or the demonstration was ended")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	text := ""
	res, err := d.site.Client.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: m.name})
	if err == nil {
		n := res.GetNode()
		text = fmt.Sprintf("; it is %q", n.GetProvisionState())
		if n.GetLastError() != "" {
			text += ", last error: " + n.GetLastError()
		}
		if f := n.GetFlow(); f.GetState() == "open" && int(f.GetCurrent()) < len(f.GetSteps()) {
			st := f.GetSteps()[f.GetCurrent()]
			text += fmt.Sprintf("; it stood at step %s.%s (%s, attempt %d)", st.GetInterface(), st.GetName(), st.GetState(), st.GetAttempt())
		}
	} else {
		text = "; reading it: " + client.Fault(err).Error()
	}
	d.tell.Do(func() { d.tails(m) })
	if f := client.Fault(cause); f != nil {
		cause = f
	}
	return fault.New(fault.Unavailable, "deploy "+m.name, "%w%s", cause, text).WithHelp("the logs are in %s, the machine's console is %s", d.dir, m.console)
}

// tails prints the end of each log.
func (d *demo) tails(m *subject) {
	for _, p := range append(append([]*site.Process(nil), d.site.Coordinators...), d.site.Agents...) {
		d.say("--- %s (%s)\n%s", p.Name, p.LogPath, p.Tail(tailLines))
	}
	d.say("--- console of %s (%s)\n%s", m.name, m.console, site.Tail(m.console, tailLines))
}

// stay keeps everything up until ctx ends.
func (d *demo) stay(ctx context.Context) error {
	<-ctx.Done()
	d.say("\nstopping")
	return nil
}

func (d *demo) machineEvent(e machine.Event) {
	switch e.What {
	case "ramdisk", "disk boot", "dead":
		d.line(e.Machine, "machine", e.What+" (simulated): "+e.Detail, 0)
	}
}
