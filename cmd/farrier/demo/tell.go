package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/test/lab/site"
)

// demo is one run: it prints, and it passes what Watch says on to those who wait.
type demo struct {
	o     Options
	dir   string
	began time.Time
	site  *site.Site

	tell sync.Once // of the logs' ends

	mu     sync.Mutex // guards the fields below and Out
	states map[string]chan string
	opened map[string]time.Time // of steps in work
}

// stateBuffer is more than a node can pass through in one run.
const stateBuffer = 256

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.o.Out, format+"\n", args...)
}

// line is one thing that happened: when, to whom, what, and how long it took.
func (d *demo) line(who, kind, what string, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.print(who, kind, what, took)
}

func (d *demo) print(who, kind, what string, took time.Duration) {
	at := time.Since(d.began).Seconds()
	if took > 0 {
		fmt.Fprintf(d.o.Out, "%7.2f s  %-4s %-8s %-46s %6.2f s\n", at, who, kind, what, took.Seconds())
		return
	}
	fmt.Fprintf(d.o.Out, "%7.2f s  %-4s %-8s %s\n", at, who, kind, what)
}

func (d *demo) started(what string, took time.Duration) {
	image, boot := "disk image built, and served over HTTP with its digest", "ramdisk packed (real); kernel and boot program are marked stand-ins"
	if d.o.VM {
		image, boot = "a server of disk images, over HTTP", "ramdisk packed, with the modules of Debian's kernel"
	}
	text := map[string]string{
		"image":        image,
		"ramdisk":      boot,
		"coordinators": "3 coordinators: processes, mutual TLS, one made the cluster, two joined by token",
		"agents":       "2 rack agents: processes, joined by token",
		"machines":     fmt.Sprintf("%d machines (%s), each with a Redfish BMC over HTTPS", d.o.Machines, d.kind()),
	}[what]
	d.line("lab", "start", text, took)
}

// follow returns the provision states that the node passes through from now on.
func (d *demo) follow(name string) <-chan string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.states == nil {
		d.states, d.opened = map[string]chan string{}, map[string]time.Time{}
	}
	d.states[name] = make(chan string, stateBuffer)
	return d.states[name]
}

// watch follows the cluster's events from an index until the site is closed.
func (d *demo) watch(index uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.site.Client.Watch(ctx, &farrierv1.WatchRequest{After: &farrierv1.Position{Index: index}}, func(r *farrierv1.WatchResponse) error {
			if e := r.GetEvent(); e != nil {
				d.event(e)
			}
			return nil
		})
	}()
	d.site.OnClose(func() {
		cancel()
		<-done
	})
}

// event prints what people want to see, and tells follow the states.
func (d *demo) event(e *farrierv1.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := e.GetFields()
	switch e.GetType() {
	case "node.provision_state":
		if ch := d.states[e.GetNodeName()]; ch != nil {
			select {
			case ch <- f["to"]:
			default: // nobody reads any more
			}
		}
	case "flow.step":
		d.step(e, f)
	case "flow.closed":
		if f["error"] != "" {
			d.print(e.GetNodeName(), f["kind"], f["status"]+" ("+d.kind()+"): "+f["error"], 0)
		}
	case "node.owner":
		if f["from"] != "" {
			d.print(e.GetNodeName(), "owner", fmt.Sprintf("moves from %s to %s: %s", f["from"], f["to"], f["reason"]), 0)
		}
	case "agent.session":
		d.print("", "agent", fmt.Sprintf("%s: session %s %s", f["agent"], f["state"], f["reason"]), 0)
	case "alarm":
		d.print("", "alarm", f["text"], 0)
	}
}

func (d *demo) step(e *farrierv1.Event, f map[string]string) {
	key := e.GetNode() + "/" + f["flow"] + "/" + f["step"]
	at := e.GetAt().AsTime()
	name := f["name"] + " (" + d.kind() + ")"
	switch f["state"] {
	case "opened":
		if d.opened == nil {
			d.opened = map[string]time.Time{}
		}
		d.opened[key] = at
	case "regrant":
		d.print(e.GetNodeName(), f["kind"], name+" goes on under a new owner", 0)
	case "retry", "reboot", "failed", "aborted":
		d.print(e.GetNodeName(), f["kind"], fmt.Sprintf("%s %s: %s", name, f["state"], f["error"]), 0)
	default:
		took := at.Sub(d.opened[key])
		delete(d.opened, key)
		d.print(e.GetNodeName(), f["kind"], name, max(took, time.Millisecond))
	}
}

// owner is the agent that has the node.
func (d *demo) owner(ctx context.Context, name string) *site.Process {
	res, err := d.site.Client.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: name})
	if err != nil {
		return nil
	}
	for _, p := range d.site.Agents {
		if p.Name == res.GetNode().GetAgent() {
			return p
		}
	}
	return nil
}

// next says what to try.
func (d *demo) next(ctx context.Context) {
	farrier := filepath.Join(d.o.Bin, "farrier")
	d.say("\nAll %d machines (%s) are active, %s after the daemons were started.", d.o.Machines, d.kind(), seconds(time.Since(d.began)))
	if !d.o.Stay {
		return
	}
	d.say("\nTry, in another terminal:\n")
	if d.o.VM {
		d.say("  nsenter --user --preserve-credentials --net --target %d bash    # the network of the demonstration", os.Getpid())
	}
	d.say("  export FARRIER_CONFIG=%s", d.site.Operator)
	for _, c := range []struct{ command, what string }{
		{"node list", "all machines"},
		{"node show m1", "one of them, with its steps"},
		{"node watch m1", "its work, as it happens"},
		{"event tail", "everything that happens"},
		{"node rebuild m1 --wait", "write the image again"},
		{"node undeploy m2 --wait", "wipe a machine and make it available"},
		{"ring show", "which agent has which machine"},
	} {
		d.say("  %s %-26s # %s", farrier, c.command, c.what)
	}
	if p := d.owner(ctx, "m1"); p != nil {
		d.say("  kill -9 %-30d # agent %s, which has m1, while m1 is being rebuilt: the other agent takes over", p.PID(), p.Name)
	}
	d.say("  kill -9 %-30d # coordinator %s: the other two go on", d.site.Coordinators[0].PID(), d.site.Coordinators[0].Name)
	d.say("\nCtrl-C ends it all.")
}
