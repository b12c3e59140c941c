package pid1

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/pkg/fault"
)

// Stage2 is the argument that process 1 gives its child.
const Stage2 = "stage2"

const rebootDelay = 10 * time.Second // after a failure, so that the console can be read

// mounts are made in this order.
var mounts = []struct{ what, where, kind, data string }{ // read-only
	{"devtmpfs", "/dev", "devtmpfs", "mode=0755"},
	{"proc", "/proc", "proc", ""},
	{"sysfs", "/sys", "sysfs", ""},
	{"tmpfs", "/run", "tmpfs", "mode=0755,size=16m"},
	{"tmpfs", "/tmp", "tmpfs", "mode=1777,size=64m"},
}

// Main is process 1. It never returns.
func Main() {
	defer func() {
		p := recover()
		say("process 1 failed: %v", p)
		restart()
	}()
	say("/init starts") // before anything that may wait, for entropy say
	go beat()
	for _, m := range mounts {
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			say("make %s: %v", m.where, err)
		}
		if err := unix.Mount(m.what, m.where, m.kind, unix.MS_NOSUID, m.data); err != nil && err != unix.EBUSY {
			say("mount %s: %v", m.where, err)
		}
	}
	console()
	child := make(chan os.Signal, 16)
	signal.Notify(child, unix.SIGCHLD)
	pid, err := start()
	if err != nil {
		panic(err)
	}
	for {
		status, ended := reap(pid)
		if ended {
			leaveBy(status)
		}
		<-child
	}
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "farrier-ramdisk: "+format+"\n", args...)
}

// beat keeps a timer running: a Go program all of whose goroutines wait for each other is ended by its runtime, and
// the kernel panics when process 1 ends.
func beat() {
	for range time.Tick(time.Minute) {
	}
}

// console has standard output and error go to the kernel's console, which may not have been there at the start.
func console() {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		say("open console: %v", err)
		return
	}
	for to := range 3 {
		if err := unix.Dup3(fd, to, 0); err != nil && fd != to {
			say("use console: %v", err)
		}
	}
}

func start() (pid int, err error) {
	p, err := os.StartProcess("/proc/self/exe", []string{"farrier-ramdisk", Stage2}, &os.ProcAttr{
		Env: []string{"PATH=/", "HOME=/", "TMPDIR=/tmp"}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, fault.New(fault.Internal, "start stage 2", "%w", err)
	}
	return p.Pid, nil
}

// reap collects every child that ended.
func reap(pid int) (status unix.WaitStatus, ended bool) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			return status, ended
		}
		if got == pid && (ws.Exited() || ws.Signaled()) {
			status, ended = ws, true
		}
	}
}

// Exit codes of stage 2 that are not failures: those of the program.
const (
	exitPowerOff = 0
	exitReboot   = 3
)

func leaveBy(status unix.WaitStatus) {
	switch {
	case status.Exited() && status.ExitStatus() == exitPowerOff:
		say("powering off")
		if err := Leave(false); err != nil {
			say("%v", err)
		}
	case status.Exited() && status.ExitStatus() == exitReboot:
		say("rebooting")
		if err := Leave(true); err != nil {
			say("%v", err)
		}
	case status.Signaled():
		say("stage 2 was killed by %v", status.Signal())
	default:
		say("stage 2 failed with code %d", status.ExitStatus())
	}
	restart()
}

// restart reboots after a failure, and stays if even that fails.
func restart() {
	for {
		say("rebooting in %s", rebootDelay)
		time.Sleep(rebootDelay)
		if err := Leave(true); err != nil {
			say("%v", err)
		}
	}
}

// Leave writes out what is in memory and switches the machine off, or starts it anew. It returns only if it failed.
func Leave(reboot bool) error {
	unix.Sync()
	cmd := unix.LINUX_REBOOT_CMD_POWER_OFF
	if reboot {
		cmd = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(cmd); err != nil {
		return fault.New(fault.Denied, "leave machine", "%w", err).WithHelp("it needs root, outside of a container")
	}
	time.Sleep(rebootDelay) // the kernel is at it
	return fault.New(fault.Timeout, "leave machine", "the kernel did not do it within %s", rebootDelay)
}
