package demo

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/farrier-project/farrier/test/lab/site"
)

// patience bounds each wait; nothing is asserted of the time that a demonstration takes.
const patience = 3 * time.Minute

// Set once by TestMain. The directory is shared, so that the image is built once; the tests run one after another.
var binary, dir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	bin, done, err := site.Binaries()
	if err == nil {
		defer done()
		dir, err = os.MkdirTemp("", "farrier-demo-")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(bin, "farrier")
	return m.Run()
}

var line = regexp.MustCompile(`^ *[0-9.]+ s  m[1-4]  `)

func TestDemoLeavesWhenEveryMachineIsActive(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), binary, "demo", "--dir", dir, "--give-up", patience.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i := range 4 {
		name := fmt.Sprintf("  m%d   ", i+1)
		for _, want := range []string{name + "active   simulated machine, after ", name + "disk     simulated disk equals the image, byte for byte"} {
			if strings.Count(string(out), want) != 1 {
				t.Errorf("%q is not there once", want)
			}
		}
	}
	for text := range strings.Lines(string(out)) {
		if line.MatchString(text) && !strings.Contains(text, "simulated") {
			t.Errorf("it does not say that it is about a simulated machine: %q", text)
		}
	}
	for _, want := range []string{"Everything it writes is in " + dir + "\n", "\nAll 4 machines (simulated) are active, "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if left := ours(t); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestDemoGivesTheReasonWhenItGivesUp(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), binary, "demo", "--dir", dir, "--give-up", "1ms").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not every machine was active within 1ms") {
		t.Errorf("%v, and it says\n%s", err, out)
	}
	if left := ours(t); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}

// A parent that is gone before it could be followed is found out, also when its children were given to process 1 or to another.
func TestDemoRefusesAParentThatIsGone(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "demo", "--dir", dir, "--parent", strconv.Itoa(gone.Process.Pid)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "that has ended") {
		t.Errorf("%v, and it says\n%s", err, out)
	}
}

func TestNothingIsLeftAfterKill(t *testing.T) {
	for _, victim := range []string{"the demonstration", "its parent"} {
		t.Run(victim, func(t *testing.T) {
			// The shell is what make is: it started the demonstration, and holds no pipe to it.
			shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", `"$1" demo --dir "$2" --machines 1 --parent $$ & echo "pid $!"; wait`, "sh", binary, dir)
			shell.WaitDelay = patience
			var errs bytes.Buffer
			shell.Stderr = &errs
			out, err := shell.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := shell.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			demo := 0
			for said := ""; !strings.Contains(said, "farrier-ramdisk runs"); { // now all kinds of processes are there
				if said, err = lines.ReadString('\n'); err != nil {
					t.Fatalf("%v: %s", err, errs.String())
				}
				if pid, ok := strings.CutPrefix(said, "pid "); ok {
					if demo, err = strconv.Atoi(strings.TrimSpace(pid)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if have := ours(t); len(have) < 8 { // the shell, the demonstration, 3 coordinators, 2 agents, a machine
				t.Errorf("only these run: %v", have)
			}
			kill := map[string]int{"the demonstration": demo, "its parent": shell.Process.Pid}[victim]
			if err := syscall.Kill(kill, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, lines) }() // until the last writer has ended
			gone(t)
			_ = shell.Wait() // killed, or its child was
		})
	}
}

// ours is the processes whose arguments name the directory, without this one.
func ours(t *testing.T) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // empty once it has ended
		if err == nil && bytes.Contains(args, []byte(dir)) {
			out[pid] = strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return out
}

// gone waits until none of ours runs: for the end of each process, by its descriptor.
func gone(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		left := ours(t)
		if len(left) == 0 {
			return
		}
		for pid, args := range left {
			fd, err := unix.PidfdOpen(pid, 0)
			if err == unix.ESRCH {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
			unix.Close(fd)
			if n == 0 && err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Fatalf("left running: %s", args)
			}
		}
	}
}
