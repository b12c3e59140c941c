package scenario

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/client"
)

// tables: what people and programs read of the nodes.
func (k *kit) tables() {
	m, other := k.Machines[plain], k.Machines[twin]
	list := strings.Split(strings.TrimSpace(k.done("node", "list").out), "\n")
	if len(list) != 4 || !strings.HasPrefix(list[0], "NAME  STATE") {
		k.t.Fatalf("node list is\n%s", strings.Join(list, "\n"))
	}
	at := strings.Index(list[0], "STATE")
	for i, want := range []string{"available", "enroll", "enroll"} {
		if row := list[1+i]; !strings.HasPrefix(row, fmt.Sprintf("m%d ", i+1)) || !strings.HasPrefix(row[at:], want+" ") {
			k.t.Errorf("row %d is %q", i+1, row)
		}
	}
	if rows := strings.Count(k.done("node", "list", "--state", "enroll", "--limit", "1").out, "\n"); rows != 2 {
		k.t.Errorf("a limit of 1 lists %d rows and the header", rows-1)
	}
	show := k.done("node", "show", m.Name).out
	for _, line := range []string{"state           available", "ports           " + m.MAC + " " + m.IP.String(), "deploy.erase_devices"} {
		if !strings.Contains(strings.Join(strings.Fields(show), " "), strings.Join(strings.Fields(line), " ")) {
			k.t.Errorf("node show lacks %q:\n%s", line, show)
		}
	}
	if strings.Contains(show, "password-of") || strings.Contains(show, "\x1b") {
		k.t.Errorf("node show tells a password or colours:\n%s", show)
	}
	type node struct {
		Name           string `json:"name" yaml:"name"`
		ProvisionState string `json:"provision_state" yaml:"provision_state"`
		Ports          []struct {
			Address string `json:"address" yaml:"address"`
		} `json:"ports" yaml:"ports"`
	}
	var fromJSON, fromYAML struct {
		Nodes []node `json:"nodes" yaml:"nodes"`
	}
	k.done("node", "list", "-o", "json").decode(k.t, &fromJSON)
	if err := yaml.Unmarshal([]byte(k.done("node", "list", "-o", "yaml").out), &fromYAML); err != nil {
		k.t.Fatal(err)
	}
	if len(fromJSON.Nodes) != 3 || fmt.Sprint(fromJSON) != fmt.Sprint(fromYAML) || fromJSON.Nodes[1].Name != other.Name {
		k.t.Errorf("node list -o json and -o yaml say\n%+v\n%+v", fromJSON, fromYAML)
	}
	var one, again node
	k.done("node", "show", m.Name, "-o", "json").decode(k.t, &one)
	if err := yaml.Unmarshal([]byte(k.done("node", "show", m.Name, "-o", "yaml").out), &again); err != nil {
		k.t.Fatal(err)
	}
	if one.ProvisionState != "available" || len(one.Ports) != 1 || one.Ports[0].Address != m.MAC || fmt.Sprint(one) != fmt.Sprint(again) {
		k.t.Errorf("node show -o json and -o yaml say\n%+v\n%+v", one, again)
	}
	k.completion()
}

// completion is what shells are given: the script must be one that bash reads, and it asks the command line itself.
func (k *kit) completion() {
	script := k.done("completion", "bash").out
	bash := exec.CommandContext(k.ctx(), "bash", "-n")
	bash.Stdin = strings.NewReader(script)
	if out, err := bash.CombinedOutput(); err != nil || !strings.Contains(script, "__start_farrier") {
		k.t.Errorf("bash does not read the completion: %v: %s", err, out)
	}
	for _, c := range []struct{ typed, want string }{{"node dep", "deploy"}, {"lock ", "break"}, {"node list --output ", "yaml"}, {"node show m", k.Machines[plain].Name},
		{"agent drain rack1", "rack1-a"}, {"coordinator remove ", "c2"}, {"operator revoke ", "admin"}, {"port delete ", k.Machines[plain].MAC}, {"setting set max_concurrent_d", "max_concurrent_deploy="},
		{"node list --group r", "rack1"}, {"node create --driver fake", "fake-hardware"}, {"port list --node m", k.Machines[plain].Name}} {
		args := append([]string{"__complete"}, strings.Split(c.typed, " ")...)
		if out := k.done(args...).out; !strings.Contains("\n"+out, "\n"+c.want) {
			k.t.Errorf("completion of %q offers %q, and not %q", c.typed, out, c.want)
		}
	}
}

// tail follows the events with the command line while the leader is killed: none is missing, none comes twice.
func (k *kit) tail() {
	res, err := k.Client.Nodes.ListNodes(k.ctx(), &farrierv1.ListNodesRequest{})
	if err != nil {
		k.t.Fatal(client.Fault(err))
	}
	after := res.GetIndex()
	tail := k.command(k.ctx(), "event", "tail", "-o", "json", "--after", fmt.Sprint(after))
	out, err := tail.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		k.t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var seen []string
	read := func(marker string) { // until the event of the marker's node
		for line := range lines {
			var e event
			answer{out: line, args: tail.Args}.decode(k.t, &e)
			seen = append(seen, e.at())
			if e.NodeName == marker {
				return
			}
		}
		k.t.Fatalf("the tail ended before %q was seen", marker)
	}
	for i := range 6 {
		marker := fmt.Sprintf("mark-%d", i)
		var old restarted
		if i == 3 {
			old = k.loseLeader()
		}
		k.done("node", "create", "--name", marker, "--group", "rack1")
		read(marker)
		old.start()
	}
	if err := tail.Process.Signal(syscall.SIGINT); err != nil {
		k.t.Fatal(err)
	}
	for line := range lines {
		var e event
		answer{out: line, args: tail.Args}.decode(k.t, &e)
		seen = append(seen, e.at())
	}
	if err := tail.Wait(); err != nil {
		k.t.Errorf("Ctrl-C ends a tail with %v", err)
	}
	if want := k.events(after, len(seen)); strings.Join(seen, " ") != strings.Join(want, " ") {
		k.t.Errorf("the tail and the log differ:\n%v\n%v", seen, want)
	}
	for i := range 6 {
		k.done("node", "delete", fmt.Sprintf("mark-%d", i))
	}
}

// event is a line of `event tail -o json`. Numbers of 64 bits are text in JSON (protojson).
type event struct {
	Position struct {
		Index   string `json:"index"`
		Ordinal uint32 `json:"ordinal"`
	} `json:"position"`
	Type     string `json:"type"`
	NodeName string `json:"node_name"`
}

func (e event) at() string {
	return fmt.Sprintf("%s.%d:%s", e.Position.Index, e.Position.Ordinal, e.Type)
}

// events reads the first events after an index afresh.
func (k *kit) events(after uint64, n int) []string {
	k.t.Helper()
	var out []string
	full := fmt.Errorf("%d events", n)
	err := k.Client.Watch(k.ctx(), &farrierv1.WatchRequest{After: &farrierv1.Position{Index: after, Ordinal: 1<<32 - 1}}, func(item *farrierv1.WatchResponse) error {
		if e := item.GetEvent(); e != nil {
			out = append(out, fmt.Sprintf("%d.%d:%s", e.GetPosition().GetIndex(), e.GetPosition().GetOrdinal(), e.GetType()))
		}
		if len(out) == n {
			return full
		}
		return nil
	})
	if err != full {
		k.t.Fatalf("read events: %v", err)
	}
	return out
}
