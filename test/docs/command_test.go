package docs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
)

// treatment says what is done with the command lines that begin with words.
type treatment struct {
	words string
	do    func(w *world, h *host, args []string) error
}

// treatments of command lines. The first that matches applies. What has no treatment fails the test.
var treatments = []treatment{ // read-only
	// Run as they stand, but for the substitutions.
	{"farrier node watch", (*world).watch},
	{"farrier event tail", (*world).watch},
	{"farrier --config ~/.config/farrier operator join", (*world).run},
	{"farrier", (*world).run},
	{"farrier-ramdisk image", (*world).run},
	{"sudo -u", (*world).runAs}, // as the test's own user; who would own what it writes is kept, and checked by the unit
	// systemd's: the unit is checked by unit_test.go, and its command run.
	{"systemctl enable --now", func(w *world, h *host, args []string) error { return w.start(h, args[3]) }},
	{"systemctl start", func(w *world, h *host, args []string) error { return w.start(h, args[2]) }},
	{"systemctl stop", func(_ *world, h *host, args []string) error { return h.halt(args[2]) }},
	// root's: done in the host's directory, without the owner, which is kept.
	{"install -d", (*world).makeDirectories},
	{"install -m", (*world).install},
	{"useradd --system", func(_ *world, h *host, args []string) error {
		h.users[args[len(args)-1]] = true
		return nil
	}},
	// The distribution's: its files are in newWorld.
	{"apt-get install --yes ipxe", func(*world, *host, []string) error { return nil }},
	// A program that is not ours and may not be here: what it prints is computed and compared with what goes into redfish_pin.
	{"openssl s_client -connect 10.1.0.5:443 </dev/null 2>/dev/null | openssl x509 -noout -pubkey | openssl pkey -pubin -outform der | sha256sum", (*world).pin},
	// Too slow to run here, and run by the pipeline: the target exists.
	{"make", dryMake},
}

// happenings are what the text says has happened before a command, or what one waits for after it.
var happenings = []struct { // read-only
	words         string
	before, after func(w *world)
}{
	{words: "farrier lock list", before: func(w *world) { // somebody holds the machine
		if _, err := w.client.Locks.AcquireLock(w.t.Context(), &farrierv1.AcquireLockRequest{Node: nodeName, Purpose: "looking at it"}); err != nil {
			w.t.Fatal(client.Fault(err))
		}
	}},
	{words: "farrier agent undrain", after: func(w *world) {
		w.until("the machine has its agent again", func(ctx context.Context) bool {
			n := w.node(ctx)
			return n.GetAgent() == "rack1-a" && n.GetPreviousAgent() == ""
		})
	}},
	{words: "farrier coordinator remove c3", before: func(w *world) { // it is gone
		if err := w.hosts["c3"].halt("farrier-coordinator"); err != nil {
			w.t.Fatal(err)
		}
	}},
	{words: "farrier agent remove rack1-a", before: func(w *world) { // it is gone
		if err := w.hosts["rack1-a"].halt("farrier-agent"); err != nil {
			w.t.Fatal(err)
		}
		w.until("its session is over", func(ctx context.Context) bool { return len(w.agents(ctx)) == 0 })
	}},
	{words: "farrier coordinator snapshot restore", before: func(w *world) { // something has changed since: it is undone
		_, err := w.client.Nodes.CreateNode(w.t.Context(), &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{Name: "mistake", Driver: "redfish", Group: "rack1", DriverInfo: w.rack.bmc.DriverInfo()}})
		if err != nil {
			w.t.Fatal(client.Fault(err))
		}
	}, after: func(w *world) { // every session ends: the agent opens another one
		w.until("the agent is there again", func(ctx context.Context) bool { return slices.Contains(w.agents(ctx), "rack1-a") })
	}},
	{words: "farrier node deploy", after: func(w *world) {
		if !w.rack.onDisk(w.t) {
			w.t.Error("the image is not on the disk")
		}
	}},
	{words: "farrier node undeploy", after: func(w *world) {
		if w.rack.onDisk(w.t) {
			w.t.Error("the image is on the disk still")
		}
	}},
}

// says is what the answers must hold. A command that is not here has to succeed.
var says = []struct { // read-only
	words string
	parts []string
}{
	{"farrier coordinator members", []string{"leader", "c1", "c2", "c3", "generation"}},
	{"farrier coordinator remove c3", []string{"c3 removed"}},
	{"farrier coordinator snapshot save", []string{"bytes written to"}},
	{"farrier coordinator snapshot restore", []string{"restored: generation 2, 0 nodes"}},
	{"farrier agent list", []string{"rack1-a", "rack1", "live", "redfish"}},
	{"farrier agent drain", []string{"draining"}},
	{"farrier agent undrain", []string{"takes machines again"}},
	{"farrier agent remove", []string{"removed"}},
	{"farrier ring show", []string{"rack1", "redfish", "rack1-a"}},
	{"farrier ring explain", []string{nodeName + " is owned by rack1-a"}},
	{"farrier ring rebalance", []string{"0 moves"}},
	{"farrier lock list", []string{nodeName, "looking at it"}},
	{"farrier lock break", []string{"broken"}},
	{"farrier node create", []string{nodeName, "rack1-a"}},
	{"farrier node validate", []string{"deploy", "ok"}},
	{"farrier node manage", []string{nodeName}},
	{"farrier node inventory", []string{"SIM0001"}},
	{"farrier node list", []string{nodeName, "active"}},
	{"farrier node show", []string{nodeName, "active", nodeMAC}},
	{"farrier node deploy", []string{nodeName + " is active"}},
	{"farrier node rebuild", []string{nodeName + " is active"}},
	{"farrier node undeploy", []string{nodeName + " is available"}},
	{"farrier node delete", []string{"deleted"}},
	{"farrier setting show", []string{"deploy_callback_timeout"}},
	{"farrier setting set", []string{"45m0s"}},
	{"farrier-coordinator operator-token", []string{"farrier-join-"}},
	{"farrier-coordinator init", []string{"farrier-coordinator run --data"}},
}

// place reads the comment that says where the next commands are run: on a host, on all (every), or at somebody's.
func place(comment string) (name string, every bool) {
	if strings.HasPrefix(comment, "on every host") {
		return "", true
	}
	if rest, ok := strings.CutPrefix(comment, "on "); ok {
		name, _, _ = strings.Cut(rest, ",")
		return name, false
	}
	if rest, ok := strings.CutPrefix(comment, "at "); ok {
		name, _, _ = strings.Cut(rest, "'")
		return name, false
	}
	return "", false
}

// tell runs a page as a story: its commands in order, each where it says, with its files put where they say.
func (w *world) tell(page string, parts []part) {
	w.t.Helper()
	var here []*host
	for _, p := range parts {
		at := fmt.Sprintf("%s:%d", page, p.line)
		switch p.kind {
		case where:
			here = w.places(at, p.text)
		case file:
			w.keep(at, p.text)
		case command:
			on := here
			if p.lang == "" { // in a table: an operator's, on the first coordinator
				on = []*host{w.hosts["c1"]}
			}
			w.treat(at, on, p.text)
		}
	}
}

func (w *world) places(at, comment string) (here []*host) {
	w.t.Helper()
	name, every := place(comment)
	for _, h := range w.hosts {
		if h.name == name || every && !h.person {
			here = append(here, h)
		}
	}
	if len(here) == 0 && comment != "where there is a checkout" {
		w.t.Errorf("%s: nothing here knows where %q is", at, comment)
	}
	return here
}

// keep puts a file block on every host. Its first line is its path.
func (w *world) keep(at, text string) {
	w.t.Helper()
	first, _, _ := strings.Cut(text, "\n")
	path, ok := strings.CutPrefix(first, "# /")
	if !ok {
		w.t.Errorf("%s: the block's first line is not `# /PATH`", at)
		return
	}
	for _, h := range w.hosts {
		h.files["/"+path] = text
		h.put(w.t, "/"+path, w.fileText(h, text))
	}
}

// treat runs one command line. A failure ends the story: what comes later stands on it.
func (w *world) treat(at string, on []*host, line string) {
	w.t.Helper()
	args := words(line)
	i := slices.IndexFunc(treatments, func(t treatment) bool { return begins(line, t.words) })
	if i < 0 {
		w.t.Fatalf("%s: nothing here knows how to treat %q", at, line)
	}
	if len(on) == 0 {
		on = []*host{nil}
		if args[0] != "make" {
			w.t.Fatalf("%s: nothing says where to run %q", at, line)
		}
	}
	began := time.Now()
	for _, happened := range happenings {
		if happened.before != nil && begins(line, happened.words) {
			happened.before(w)
		}
	}
	for _, h := range on {
		if err := treatments[i].do(w, h, args); err != nil {
			w.t.Fatalf("%s: %s: %v", at, line, err)
		}
	}
	for _, happened := range happenings {
		if happened.after != nil && begins(line, happened.words) {
			happened.after(w)
		}
	}
	w.t.Logf("%s: %s (%.2f s)", at, line, time.Since(began).Seconds())
}

// words splits a command line. The only words with a space in them are those with $(uname -r).
func words(line string) []string {
	all := strings.Fields(strings.ReplaceAll(line, "$(uname -r)", "$(uname_-r)"))
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "$(uname_-r)", "$(uname -r)")
	}
	return all
}

func begins(line, words string) bool { return line == words || strings.HasPrefix(line, words+" ") }

// run runs a program of ours to its end and looks at what it says.
func (w *world) run(h *host, args []string) error {
	out, err := w.exec(h, args)
	if err != nil {
		return err
	}
	line := strings.Join(args, " ")
	for _, s := range says {
		for _, text := range s.parts {
			if begins(line, s.words) && !strings.Contains(out, text) {
				return fmt.Errorf("the answer does not hold %q:\n%s", text, out)
			}
		}
	}
	if strings.HasPrefix(out, "farrier-join-") {
		w.token = strings.TrimSpace(out)
	}
	if args[0] == "farrier-ramdisk" {
		h.made = append(h.made, flagValue(args, "--out"))
	}
	return nil
}

// runAs is `sudo -u USER COMMAND`: the user must be there, and may write where it writes.
func (w *world) runAs(h *host, args []string) error {
	user, args := args[2], args[3:]
	if !h.users[user] {
		return fmt.Errorf("no command made the user %s", user)
	}
	var writes []string
	for _, f := range []string{"--data", "--operator-dir"} {
		if path := flagValue(args, f); path != "" {
			writes = append(writes, path)
		}
	}
	for _, path := range writes {
		if owner := h.owner(path); owner != user {
			return fmt.Errorf("%s may not write %s, which is in a directory of %s", user, path, owner)
		}
	}
	if err := w.run(h, args); err != nil {
		return err
	}
	for _, path := range writes {
		h.owners[path] = user
	}
	return nil
}

// makeDirectories is `install -d [-o USER] [-g GROUP] -m MODE DIR...`.
func (w *world) makeDirectories(h *host, args []string) error {
	owner := flagValue(args, "-o")
	if owner != "" && (!h.users[owner] || flagValue(args, "-g") != owner) {
		return fmt.Errorf("no command made the user %q", owner)
	}
	for _, a := range args[1:] {
		if strings.HasPrefix(a, "/") {
			h.put(w.t, a+"/", "")
			h.made = append(h.made, a)
			h.owners[a] = first(owner, "root")
		}
	}
	return nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// install is `install -m MODE FILE... DIR/` and `install -m MODE FILE FILE`. Programs are linked, not copied.
func (w *world) install(h *host, args []string) error {
	from, to := args[3:len(args)-1], args[len(args)-1]
	for _, f := range from {
		target := h.dir + to
		if strings.HasSuffix(to, "/") {
			target = filepath.Join(target, filepath.Base(f))
		}
		if name, ok := strings.CutPrefix(f, "bin/"); ok {
			if err := os.Symlink(filepath.Join(binaries, name), target); err != nil {
				return err
			}
			continue
		}
		b, err := os.ReadFile(w.argument(h, f))
		if err == nil {
			err = os.WriteFile(target, b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pin looks at the BMC's certificate.
func (w *world) pin(*host, []string) error {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(w.rack.bmc.URL(), "https://"), &tls.Config{InsecureSkipVerify: true}) // the key is what is wanted
	if err != nil {
		return err
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	if got := hex.EncodeToString(sum[:]); got != w.rack.bmc.Pin() {
		return fmt.Errorf("the digest is %s, redfish_pin %s", got, w.rack.bmc.Pin())
	}
	return nil
}

func dryMake(_ *world, _ *host, args []string) error {
	out, err := exec.Command("make", append([]string{"-n", "-C", root}, args[1:]...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// watch runs what goes on until Ctrl-C: it has to say something, and to end well.
func (w *world) watch(h *host, args []string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd, err := w.prepare(ctx, h, args)
	if err != nil {
		return err
	}
	return w.watched(ctx, cmd, nodeName)
}

// watched starts cmd, lets things happen to the node until cmd has said something, and interrupts it.
func (w *world) watched(ctx context.Context, cmd *exec.Cmd, node string) error {
	var out, errs signalled
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	maintenance := func(on bool) error {
		_, err := w.client.Nodes.SetMaintenance(ctx, &farrierv1.SetMaintenanceRequest{Node: node, On: on, Reason: map[bool]string{true: "something happens"}[on]})
		if err != nil {
			return client.Fault(err)
		}
		return nil
	}
	for on := true; out.String() == ""; on = !on {
		if err := maintenance(on); err != nil {
			return err
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %v: %s", err, errs.String())
		case <-time.After(50 * time.Millisecond): // for the next event, should it not listen yet
		}
	}
	if err := maintenance(false); err != nil {
		return err
	}
	_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended by itself
	if err := <-ended; err != nil {
		return errors.Join(err, errors.New(errs.String()))
	}
	return nil
}

// signalled is a buffer that one goroutine fills and another one reads.
type signalled struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (s *signalled) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *signalled) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}
