package docs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/farrier-project/farrier/cmd/farrier/cli"
	"github.com/farrier-project/farrier/cmd/farrier/demo"
	"github.com/farrier-project/farrier/test/lab/site"
)

var binaries string // directory of the programs; set once by TestMain

func TestMain(m *testing.M) {
	dir, done, err := site.Binaries()
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
	binaries = dir
	code := m.Run()
	done()
	os.Exit(code)
}

// The pages with a story.
const (
	readme     = "README.md"
	operations = "docs/operations.md"
	tryIt      = "Try it"         // README: with the demonstration
	realRack   = "On a real rack" // README: with the files of docs/operations.md
)

// in are the parts of a section.
func in(parts []part, section string) (some []part) {
	for _, p := range parts {
		if p.section == section {
			some = append(some, p)
		}
	}
	return some
}

// TestOperations does what docs/operations.md says, from the first host to the last backup.
func TestOperations(t *testing.T) {
	parts := read(t, operations)
	newWorld(t, parts).tell(operations, parts)
}

// TestRealRack does what README.md says of a real rack.
func TestRealRack(t *testing.T) {
	parts := in(read(t, readme), realRack)
	w := newWorld(t, parts)
	for _, p := range read(t, operations) {
		if p.kind == file {
			w.keep(operations, p.text)
		}
	}
	w.tell(readme, parts)
}

// TestTryIt runs the demonstration, compares the excerpt with what it prints, and runs what README.md says to try.
func TestTryIt(t *testing.T) {
	var out signalled
	up := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- demo.Run(ctx, demo.Options{Dir: t.TempDir(), Bin: binaries, Machines: 1, Stay: true, Out: until(&out, "Ctrl-C ends it all.", up)})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the demonstration ended with %v", err)
		}
	}()
	select {
	case <-up:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the demonstration ended: %v\n%s", err, out.String())
	}
	printed := out.String()
	_, rest, _ := strings.Cut(printed, "export FARRIER_CONFIG=")
	operator, _, _ := strings.Cut(rest, "\n")
	w := &world{t: t}
	w.open(operator)
	for _, p := range in(read(t, readme), tryIt) {
		at := fmt.Sprintf("%s:%d", readme, p.line)
		switch {
		case p.kind == excerpt:
			compare(t, at, p.text, printed)
		case p.kind == command && begins(p.text, "make"):
			if err := dryMake(nil, nil, strings.Fields(p.text)); err != nil {
				t.Errorf("%s: %s: %v", at, p.text, err)
			}
		case p.kind == command && strings.HasPrefix(p.text, "bin/farrier "):
			if err := w.try(strings.Fields(p.text), operator); err != nil {
				t.Errorf("%s: %s: %v", at, p.text, err)
			}
		case p.kind == command && p.text != "export FARRIER_CONFIG=…":
			t.Errorf("%s: nothing here knows how to treat %q", at, p.text)
		}
	}
}

// try runs a command as in the demonstration's other terminal.
func (w *world) try(args []string, operator string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "farrier"), args[1:]...)
	cmd.Env = []string{"FARRIER_CONFIG=" + operator, "PATH=/usr/bin:/bin"}
	if begins(strings.Join(args[1:], " "), "event tail") {
		return w.watched(ctx, cmd, "m1")
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("m1")) && !bytes.Contains(out, []byte("rack1")) {
		return fmt.Errorf("%v: %s", err, out)
	}
	return nil
}

// until is a writer that closes seen when what was written holds text.
func until(to *signalled, text string, seen chan struct{}) io.Writer {
	return writer(func(p []byte) (int, error) {
		before := strings.Contains(to.String(), text)
		n, err := to.Write(p)
		if !before && strings.Contains(to.String(), text) {
			close(seen)
		}
		return n, err
	})
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

var numberRE = regexp.MustCompile(`\d+`)

// compare finds each line of an excerpt in what was printed, whatever its numbers are.
func compare(t *testing.T, at, excerpt, printed string) {
	t.Helper()
	plain := func(line string) string {
		return strings.Join(strings.Fields(numberRE.ReplaceAllString(line, "0")), " ")
	}
	lines := map[string]bool{}
	for line := range strings.Lines(printed) {
		lines[plain(line)] = true
	}
	for line := range strings.Lines(excerpt) {
		if line := plain(line); line != "…" && !lines[line] {
			t.Errorf("%s: this is not printed any more: %s", at, line)
		}
	}
}

// TestEveryPage: a page with blocks to run is run, and each command that a page mentions is one that the program knows.
func TestEveryPage(t *testing.T) {
	for _, page := range pages(t) {
		for _, p := range read(t, page) {
			at := fmt.Sprintf("%s:%d", page, p.line)
			told := page == operations || page == readme && (p.section == tryIt || p.section == realRack)
			switch {
			case p.kind == span:
				mention(t, at, p.text)
			case p.kind == command && begins(p.text, "make"):
				if err := dryMake(nil, nil, strings.Fields(p.text)); err != nil {
					t.Errorf("%s: %s: %v", at, p.text, err)
				}
			case !told && p.kind != where:
				t.Errorf("%s: nothing here runs this page's blocks", at)
			}
		}
	}
}

// mention checks a command in the middle of a text: its words and its flags.
func mention(t *testing.T, at, text string) {
	t.Helper()
	args := strings.Fields(strings.ReplaceAll(text, "…", ""))
	program, args := strings.TrimPrefix(args[0], "bin/"), args[1:]
	switch program {
	case "make":
		if err := dryMake(nil, nil, append([]string{"make"}, args...)); err != nil {
			t.Errorf("%s: `%s`: %v", at, text, err)
		}
		return
	case "farrier":
		root := cli.New("", nil, io.Discard, io.Discard)
		root.AddCommand(demo.Command())
		c, rest, err := root.Find(args)
		if err == nil {
			err = c.ParseFlags(rest)
		}
		if err == nil && len(rest) > 0 {
			err = c.ValidateArgs(c.Flags().Args())
		}
		if err != nil {
			t.Errorf("%s: `%s`: %v", at, text, err)
		}
		return
	}
	var words []string
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			break
		}
		words = append(words, a)
	}
	help, err := exec.Command(filepath.Join(binaries, program), append(words, "--help")...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: `%s`: %v: %s", at, text, err, help)
	}
	for _, a := range args {
		if name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "="); strings.HasPrefix(a, "-") && !bytes.Contains(help, []byte("-"+name)) {
			t.Errorf("%s: `%s`: there is no flag %s", at, text, a)
		}
	}
}

// TestHelpIsAnAnswer: every program, and every command of it, answers --help and -h with its usage and status 0.
func TestHelpIsAnAnswer(t *testing.T) {
	for program, commands := range map[string][]string{
		"farrier": {"", "demo", "node", "node deploy", "coordinator snapshot restore"}, "farrier-coordinator": {"", "init", "join", "rejoin", "run"},
		"farrier-agent": {"", "join", "run"}, "farrier-ramdisk": {"", "image"},
	} {
		for _, c := range commands {
			for _, flag := range []string{"--help", "-h"} {
				out, err := exec.Command(filepath.Join(binaries, program), append(strings.Fields(c), flag)...).CombinedOutput()
				if err != nil || len(out) < 100 {
					t.Errorf("%s %s %s: %v: %s", program, c, flag, err, out)
				}
			}
		}
	}
}
