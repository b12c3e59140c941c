package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/pkg/fault"
)

// TestShowLeftFieldsOut: every field of a node, set, changes what `node show` says.
func TestShowLeftFieldsOut(t *testing.T) {
	show := func(n *farrierv1.Node) string { return fmt.Sprint(nodePairs(n)) }
	var walk func(path string, m protoreflect.Message, root *farrierv1.Node)
	told := map[protoreflect.FullName]bool{ // elsewhere, or by something else
		"farrier.v1.Node.flow": true, "farrier.v1.Lock.node": true, "farrier.v1.Lock.node_name": true, "farrier.v1.Lock.session": true, "farrier.v1.Lock.task": true,
		"farrier.v1.Port.id": true, "farrier.v1.Port.node": true, "farrier.v1.Port.node_name": true, "farrier.v1.Port.name": true, "farrier.v1.Port.pxe_enabled": true, "farrier.v1.Port.version": true,
	}
	walk = func(path string, m protoreflect.Message, root *farrierv1.Node) {
		for i := range m.Descriptor().Fields().Len() {
			fd := m.Descriptor().Fields().Get(i)
			if told[fd.FullName()] {
				continue
			}
			at := path + "." + string(fd.Name())
			before := show(root)
			switch {
			case fd.IsMap():
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString("key").MapKey(), protoreflect.ValueOfString("v-"+at))
			case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
				walk(at, m.Mutable(fd).List().AppendMutable().Message(), root)
				continue
			case fd.IsList():
				m.Mutable(fd).List().Append(protoreflect.ValueOfString("v-" + at))
			case fd.Kind() == protoreflect.MessageKind && fd.Message().FullName() == "google.protobuf.Timestamp":
				ts := m.Mutable(fd).Message()
				ts.Set(ts.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(1e9+int64(i)*86400))
			case fd.Kind() == protoreflect.MessageKind:
				walk(at, m.Mutable(fd).Message(), root)
				continue
			case fd.Kind() == protoreflect.StringKind:
				m.Set(fd, protoreflect.ValueOfString("v-"+at))
			case fd.Kind() == protoreflect.BoolKind:
				m.Set(fd, protoreflect.ValueOfBool(true))
			case fd.Kind() == protoreflect.Uint64Kind:
				m.Set(fd, protoreflect.ValueOfUint64(7))
			case fd.Kind() == protoreflect.Uint32Kind:
				m.Set(fd, protoreflect.ValueOfUint32(7))
			default:
				t.Fatalf("%s is of a kind that this test does not know", at)
			}
			if show(root) == before {
				t.Errorf("%s is not shown", at)
			}
		}
	}
	n := &farrierv1.Node{Lock: &farrierv1.Lock{Token: 1}, Wipe: &farrierv1.WipeRecord{Method: "x"}}
	walk("node", n.ProtoReflect(), n)
}

// TestAnAbortAndAPowerOnWereFailures: what counts is the work that was asked for, not the state of the node.
func TestAnAbortAndAPowerOnWereFailures(t *testing.T) {
	node := func(state string, flow uint64, end, last string) *farrierv1.Node {
		return &farrierv1.Node{Name: "m1", ProvisionState: state, LastError: last, Flow: &farrierv1.Flow{Id: flow, State: end}}
	}
	for _, c := range []struct {
		name string
		w    work
		end  *farrierv1.Node
		fail bool
	}{
		{"a deploy", work{verb: "active", flow: 3}, node("active", 3, "done", ""), false},
		{"a deploy that failed", work{verb: "active", flow: 3}, node("deploy failed", 3, "failed", "no disk"), true},
		{"a deploy that somebody aborted", work{verb: "active", flow: 3}, node("deploy failed", 3, "aborted", "aborted by bob"), true},
		{"power on, the deploy of before had failed", work{verb: "power on", flow: 4, power: true}, node("deploy failed", 4, "done", ""), false},
		{"power on that failed", work{verb: "power on", flow: 4, power: true}, node("active", 4, "failed", "no BMC"), true},
		{"an abort", work{verb: "abort", flow: 3}, node("deploy failed", 3, "aborted", "aborted by me"), false},
		{"an abort that came late", work{verb: "abort", flow: 3}, node("active", 3, "done", ""), true},
		{"a tear down during a deploy", work{verb: "deleted", flow: 3}, node("available", 5, "done", ""), false},
		{"a tear down whose clean failed", work{verb: "deleted", flow: 3}, node("clean failed", 4, "failed", "no answer"), true},
		{"clean, and yet not available", work{verb: "provide", flow: 3}, node("manageable", 3, "done", "clean: no wipe"), true},
		{"done at once", work{verb: "manage"}, node("manageable", 2, "failed", "old"), false},
	} {
		if err := c.w.judge(c.end); (err != nil) != c.fail {
			t.Errorf("%s: %v", c.name, err)
		} else if err != nil && outcome.ExitCode(err) != outcome.ExitWorkFailed {
			t.Errorf("%s: status %d", c.name, outcome.ExitCode(err))
		}
	}
}

// TestErrorsNamedVerbsWithoutACommand: the API's verbs are Ironic's, and the next thing to type is a command.
func TestErrorsNamedVerbsWithoutACommand(t *testing.T) {
	f := outcome.Of(t.Context(), fault.New(fault.IllegalState, "set provision state", "node m3 is active: active is illegal").
		WithHelp("legal now: rebuild, deleted, rescue, service").WithDetail(&fault.StateDetail{LegalVerbs: []string{"rebuild", "deleted", "rescue", "service"}}))
	var out bytes.Buffer
	outcome.Report(&out, f)
	want := "farrier: set provision state: node m3 is active: it cannot be told to deploy\n  → legal now: farrier node rebuild, farrier node undeploy\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if err := run(t, "", "node", "deleted", "m1"); err == nil || !strings.Contains(err.(*fault.Error).Help, "`farrier node undeploy`") {
		t.Errorf("node deleted: %v", err)
	}
	commands := map[string]bool{}
	root := New("test", nil, nil, nil)
	for _, c := range root.Commands() {
		for _, leaf := range c.Commands() {
			commands[c.Name()+" "+leaf.Name()] = true
		}
	}
	for verb, use := range outcome.Commands() {
		if !commands["node "+use] {
			t.Errorf("the command of %q, node %s, is none", verb, use)
		}
	}
}

// run runs the command line without a cluster.
func run(t *testing.T, in string, args ...string) error {
	t.Helper()
	var out, errOut bytes.Buffer
	root := New("test", strings.NewReader(in), &out, &errOut)
	root.SetArgs(append([]string{"--config", t.TempDir()}, args...))
	return root.ExecuteContext(t.Context())
}

// TestWhatWasTypedWrong: an error says which word is missing, is too many, or is not known, and what to type.
func TestWhatWasTypedWrong(t *testing.T) {
	for line, want := range map[string]string{
		"node show":                    "node show: NODE is missing → usage: farrier node show NODE [flags]",
		"node manage":                  "node manage: NODE is missing → usage: farrier node manage NODE... [flags]",
		"node trait add m1":            "node trait add: TRAIT is missing → usage: farrier node trait add NODE TRAIT... [flags]",
		"port create m1":               "port create: MAC is missing → usage: farrier port create NODE MAC [flags]",
		"node list m1":                 `node list: "m1" is an argument too many → usage: farrier node list [flags]`,
		"nod list":                     "there is no command \"nod\" → did you mean `farrier node`? see `farrier --help`",
		"node lst":                     "node: there is no command \"lst\" → did you mean `farrier node list`? see `farrier node --help`",
		"node list --stat active":      "node list: unknown flag: --stat → did you mean --state? see `farrier node list --help`",
		"node list --states active":    "node list: unknown flag: --states → did you mean --state? see `farrier node list --help`",
		"node list --colour red":       "node list: unknown flag: --colour → see `farrier node list --help`",
		"node create --driver x m1":    `node create: "m1" is an argument too many → usage: farrier node create --name NAME --driver redfish --mac MAC --driver-info redfish_address=https://… [flags]`,
		"completion bsh":               "completion: there is no command \"bsh\" → did you mean `farrier completion bash`? see `farrier completion --help`",
		"completion zsh x":             `completion zsh: "x" is an argument too many → usage: farrier completion zsh [flags]`,
		"coordinator snapshot restore": "coordinator snapshot restore: FILE is missing → usage: farrier coordinator snapshot restore FILE --yes [flags]",
	} {
		err := run(t, "", strings.Fields(line)...)
		if f, ok := err.(*fault.Error); !ok || f.Kind != fault.Invalid || f.Error()+" → "+f.Help != want {
			t.Errorf("farrier %s:\n%v → %s\nwant %s", line, err, f.Help, want)
		}
	}
}

// TestValuesWereHalfRead: what does not fit whole is refused.
func TestValuesWereHalfRead(t *testing.T) {
	for _, arg := range []string{"max_concurrent_deploy=5x", "step_tries=1e3", "step_tries=-1", "step_tries", "step_tries=", "automated_clean=yes", "session_ttl=2", "nosuch=1"} {
		if _, _, err := parseSettings([]string{arg}); outcome.ExitCode(err) != outcome.ExitUsage || err.(*fault.Error).Help == "" {
			t.Errorf("%s: %v", arg, err)
		}
	}
	st, paths, err := parseSettings([]string{"max_concurrent_deploy=5", "session_ttl=3s"})
	if err != nil || st.GetMaxConcurrentDeploy() != 5 || st.GetSessionTtl().AsDuration() != 3*time.Second || len(paths) != 2 {
		t.Errorf("%v %v %v", st, paths, err)
	}
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"": {}, "2h": now.Add(-2 * time.Hour), "2026-01-01 15:04": time.Date(2026, 1, 1, 15, 4, 0, 0, time.UTC), "2026-01-01": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("since %q: %v, %v", text, got, err)
		}
	}
	if _, err := parseSince("last night", now); outcome.ExitCode(err) != outcome.ExitUsage {
		t.Errorf("since last night: %v", err)
	}
}

// TestWithSeveralMachinesOneErrorHidTheOthers: each is reported, and the status is the first's.
func TestWithSeveralMachinesOneErrorHidTheOthers(t *testing.T) {
	a := &app{}
	c := New("test", nil, nil, nil)
	c.SetContext(context.Background())
	s := &session{app: a}
	err := outcome.Of(context.Background(), s.each([]string{"m1", "m2", "m3"}, func(node string) error {
		switch node {
		case "m1":
			return nil
		case "m2":
			return fault.New(fault.Locked, "", "it is held").WithHelp("wait")
		}
		return fault.New(fault.NotFound, "", "it is not there")
	}))
	var out bytes.Buffer
	outcome.Report(&out, err)
	if out.String() != "farrier: m2: it is held\n  → wait\nfarrier: m3: it is not there\n" || outcome.ExitCode(err) != outcome.ExitConflict {
		t.Errorf("status %d\n%s", outcome.ExitCode(err), out.String())
	}
}

// TestAMissingConfigurationLookedLikeAMissingMachine: scripts take status 3 for "there is no such machine".
func TestAMissingConfigurationLookedLikeAMissingMachine(t *testing.T) {
	root := New("test", strings.NewReader(""), io.Discard, io.Discard)
	root.SetArgs([]string{"node", "show", "n1", "--config", filepath.Join(t.TempDir(), "none")})
	err := root.ExecuteContext(t.Context())
	if got := outcome.ExitCode(err); got != outcome.ExitNoConfig {
		t.Errorf("status %d for %v, want %d", got, err, outcome.ExitNoConfig)
	}
	for _, args := range [][]string{{"node", "show", "n1"}, {"node", "show", "n1", "--server", "127.0.0.1:1"}} { // in a directory without a certificate
		if err := run(t, "", args...); outcome.ExitCode(err) != outcome.ExitNoConfig || !strings.Contains(err.(*fault.Error).Help, "farrier operator join TOKEN") {
			t.Errorf("status %d for %v in an empty directory, want %d", outcome.ExitCode(err), err, outcome.ExitNoConfig)
		}
	}
	if got := outcome.ExitCode(fault.New(fault.NotFound, "", "no node n1")); got != outcome.ExitNotFound {
		t.Errorf("status %d for a missing machine, want %d", got, outcome.ExitNotFound)
	}
}
