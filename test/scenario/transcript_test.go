package scenario

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/test/lab/site"
)

var update = flag.Bool("update", false, "rewrite deploy.txt from what happens") // read-only once parsed

const transcriptHead = `# One machine's life, told by the events of its node: each command of the operator, and what followed it to its end.
#
# One coordinator, one rack agent, one software machine. Locks are granted while an agent acts and released while the
# ramdisk works; a step that is done and the next that is opened are one entry of the log. Tokens, boot attempts and ids
# are numbered as they come; times are left out, and so is the ramdisk's first contact, which may come before the step
# that waits for it.
#
# Rewritten by: go test ./test/scenario -run TestDeployTranscript -update
`

// TestDeployTranscript compares a whole life of a machine with deploy.txt.
func TestDeployTranscript(t *testing.T) {
	k := startSite(t, site.Config{Coordinators: 1, Agents: 1, Machines: 1})
	k.settings("session_ttl", &farrierv1.Settings{SessionTtl: seconds(60)}) // a busy computer's pauses are no part of the story
	events := k.happenings()
	m := k.Machines[0]
	var said transcript
	for _, c := range []struct{ line, last, to string }{
		{"node create --name m1 --group rack1 --mac MAC=IP --driver-info …", "port.created", ""},
		{"node manage m1 --wait", "node.provision_state", "manageable"},
		{"node inspect m1 --wait", "node.provision_state", "manageable"},
		{"node provide m1 --wait", "node.provision_state", "available"},
		{"node deploy m1 --image URL --sha256 DIGEST --wait", "node.provision_state", "active"},
		{"node undeploy m1 --wait", "node.provision_state", "available"},
	} {
		fmt.Fprintf(&said.text, "\n$ farrier %s\n", c.line)
		var args []string
		for _, a := range strings.Fields(c.line) {
			a = strings.NewReplacer("MAC=IP", m.MAC+"="+m.IP.String(), "URL", k.ImageURL, "DIGEST", k.Image.SHA256).Replace(a)
			if a == "…" {
				args = args[:len(args)-1]
				for key, value := range m.BMC.DriverInfo() {
					args = append(args, "--driver-info", key+"="+value)
				}
				continue
			}
			args = append(args, a)
		}
		k.done(args...)
		for {
			e := k.next(events)
			said.event(e)
			if e.GetType() == c.last && e.GetFields()["to"] == c.to {
				break
			}
		}
	}
	got := transcriptHead + said.text.String()
	if *update {
		if err := os.WriteFile("deploy.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("deploy.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("deploy.txt tells another story from its line %d on; run the test with -update and read the difference. It was:\n%s", differ(got, string(want)), got)
	}
}

// differ is the number of the first line that is not the same.
func differ(a, b string) int {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(la), len(lb)) {
		if la[i] != lb[i] {
			return i + 1
		}
	}
	return min(len(la), len(lb)) + 1
}

// happenings follows what happens to nodes from now on.
func (k *kit) happenings() <-chan *farrierv1.Event {
	k.t.Helper()
	list, err := k.Client.Nodes.ListNodes(k.ctx(), &farrierv1.ListNodesRequest{PageSize: 1})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	ctx, cancel := context.WithCancel(k.t.Context())
	events, done := make(chan *farrierv1.Event, 1024), make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Client.Watch(ctx, &farrierv1.WatchRequest{After: &farrierv1.Position{Index: list.GetIndex(), Ordinal: 1<<32 - 1}}, func(r *farrierv1.WatchResponse) error {
			if r.GetEvent().GetNode() == "" {
				return nil
			}
			select {
			case events <- r.GetEvent():
			case <-ctx.Done():
			}
			return nil
		})
	}()
	k.t.Cleanup(func() {
		cancel()
		<-done
	})
	return events
}

func (k *kit) next(events <-chan *farrierv1.Event) *farrierv1.Event {
	k.t.Helper()
	select {
	case e := <-events:
		return e
	case <-k.ctx().Done():
		k.t.Fatal("no event comes any more")
		return nil
	}
}

// transcript writes events so that every run writes the same.
type transcript struct {
	text  strings.Builder
	names map[string]string // of what differs from run to run
	count map[string]int
}

var idRE = regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f-]{27})$`)

func (s *transcript) event(e *farrierv1.Event) {
	if e.GetType() == "flow.edge" {
		return
	}
	fmt.Fprintf(&s.text, "  %-21s", e.GetType())
	f := e.GetFields()
	for _, key := range slices.Sorted(maps.Keys(f)) {
		value := f[key]
		if key == "token" || idRE.MatchString(value) {
			value = s.name(key, value)
		}
		if strings.Contains(value, " ") {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&s.text, " %s=%s", key, value)
	}
	s.text.WriteByte('\n')
}

// name gives a value the next number of its kind.
func (s *transcript) name(key, value string) string {
	if s.names == nil {
		s.names, s.count = map[string]string{}, map[string]int{}
	}
	if s.names[key+value] == "" {
		s.count[key]++
		s.names[key+value] = fmt.Sprintf("%s-%d", key, s.count[key])
	}
	return s.names[key+value]
}
