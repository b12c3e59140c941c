package scenario

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/farrier-project/farrier/cmd/farrier/cli"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/coordinator/lifecycle"
	"github.com/farrier-project/farrier/test/lab/site"
)

// typed is one command line: what is typed, its exit status, and what the answer says somewhere. DIR stands for a
// directory of the test's, ANSWER for what the command before wrote, TOKEN for its last word, SHA for a digest.
type typed struct {
	line   string
	status int
	says   []string
}

// everyCommand is a day with machines that are simulated in the agent: each command of the command line is typed once at
// least.
var everyCommand = []typed{ // read-only
	{"completion bash", 0, []string{"__start_farrier"}},
	{"completion zsh", 0, []string{"#compdef farrier"}},
	{"completion fish", 0, []string{"complete -c farrier"}},
	{"completion powershell", 0, []string{"Register-ArgumentCompleter"}},
	{"coordinator members", 0, []string{"MEMBER", "c1", "leader", "one coordinator only"}},
	{"coordinator remove c1", outcome.ExitDenied, []string{"last member", "→"}},
	{"coordinator token c2", 0, []string{"farrier-join-"}},
	{"operator token alice", 0, []string{"farrier-join-"}},
	{"--config DIR/alice operator join ANSWER", 0, []string{"joined as alice"}},
	{"--config DIR/alice node list", 0, []string{"NAME"}},
	{"operator token bob", 0, nil},
	{"--config DIR/alice operator join ANSWER", outcome.ExitConflict, []string{"operator alice", "--config"}},
	{"operator list", 0, []string{"INVITED BY", "init", "alice", "ends within 719h"}},
	{"operator list --all", 0, []string{"coordinator", "rack1-a"}},
	{"operator revoke alice --reason left", 0, []string{"alice revoked (certificates: 1)"}},
	{"--config DIR/alice node list", outcome.ExitDenied, []string{"operator alice was revoked by operator ", ": left", "farrier operator token alice"}},
	{"operator list", 0, []string{"revoked by operator", "left"}},
	{"operator revoke alice", outcome.ExitNotFound, []string{"alice", "farrier operator list"}},
	{"agent token rack1-z --group rack1", 0, []string{"farrier-join-"}},
	{"agent list", 0, []string{"AGENT", "rack1-a", "live"}},
	{"agent remove rack1-b", outcome.ExitConflict, []string{"live", "farrier agent drain rack1-b", "--force"}},
	{"setting show", 0, []string{"max_concurrent_deploy", "250"}},
	{"setting set max_concurrent_deploy=5x", outcome.ExitUsage, []string{"5x", "→"}},
	{"setting set max_concurrent_deploy=40", 0, []string{"40"}},

	{"node list --server 127.0.0.1:1 --timeout 2s", outcome.ExitUnavailable, []string{"127.0.0.1:1", "→"}},
	{"node list -o json", 0, []string{`"nodes": []`}},
	{"node create --name m1 --driver fake-hardware --group rack1 --mac 52:54:00:77:08:01", 0, []string{"m1 enrolled", "farrier node manage m1"}},
	{"node create --name m2 --driver fake-hardware --group rack1 --mac 52:54:00:77:08:02", 0, nil},
	{"node set m1 --description shelf --owner lab", 0, []string{"m1: version"}},
	{"node trait add m1 CUSTOM_SHELF CUSTOM_GPU", 0, []string{"m1: traits", "CUSTOM_SHELF", "CUSTOM_GPU"}},
	{"node trait remove m1 CUSTOM_GPU", 0, []string{"m1: traits CUSTOM_SHELF"}},
	{"node trait remove m1 CUSTOM_GPU", outcome.ExitNotFound, []string{"CUSTOM_GPU", "→ it has: CUSTOM_SHELF"}},
	{"node trait add m1 gpu", outcome.ExitUsage, []string{"gpu", "→"}},
	{"node trait add m1", outcome.ExitUsage, []string{"TRAIT is missing", "usage: farrier node trait add NODE TRAIT..."}},
	{"node trait list m1", 0, []string{"TRAIT", "CUSTOM_SHELF"}},
	{"node trait remove m1 CUSTOM_SHELF", 0, []string{"m1: traits none"}},
	{"node trait list m1 -o json", 0, []string{`"traits": []`}},
	{"node show 52:54:00:77:08:01", 0, []string{"shelf", "lab", "enroll"}},
	{"node list --fields owner,name,ports.address", 0, []string{"OWNER  NAME  PORTS.ADDRESS", "lab    m1    52:54:00:77:08:01"}},
	{"node list --fields state", outcome.ExitUsage, []string{`no field "state"`, "→", "provision_state"}},
	{"node list --fields version,name -o yaml", 0, []string{"nodes:", "name: m1"}},
	{"node show m1 --fields provision_state,fault,flow.state", 0, []string{"provision_state  enroll", "fault            -"}},
	{"agent list --fields state,name", 0, []string{"STATE  NAME", "live   rack1-a"}},
	{"port list --fields node_name,address", 0, []string{"NODE_NAME  ADDRESS", "m1         52:54:00:77:08:01"}},
	{"ring show --fields driver,members.agent", 0, []string{"fake-hardware", "rack1-a"}},
	{"lock list --fields node_name,token", 0, []string{"NODE_NAME  TOKEN"}},
	{"operator list --fields name,joined_at", 0, []string{"NAME", "alice"}},
	{"coordinator members --fields id,leader", 0, []string{"ID", "c1", "true"}},
	{"setting show --fields step_tries -o json", 0, []string{`"step_tries": `}},
	{"node deploy m1 --image http://127.0.0.1/x.raw --sha256 SHA", outcome.ExitConflict, []string{"deploy", "farrier node manage"}},
	{"node rebuild m1 --sha256 SHA", outcome.ExitUsage, []string{"--image"}},
	{"node deleted m1", outcome.ExitUsage, []string{"farrier node undeploy"}},
	{"node list --state availble", outcome.ExitUsage, []string{"availble", "available"}},
	{"port create m1 52:54:00:77:08:11 --ip 127.77.8.11", 0, []string{"added"}},
	{"port set 52:54:00:77:08:11 --address 52:54:00:77:08:12 --ip 127.77.8.12", 0, []string{"52:54:00:77:08:12: version 2"}},
	{"port set 52:54:00:77:08:12 --ip 127.77.8", outcome.ExitUsage, []string{"127.77.8", "→"}},
	{"port set 52:54:00:77:08:12 --name left --pxe=false", 0, []string{"version 3"}},
	{"port set 52:54:00:77:08:12", outcome.ExitUsage, []string{"nothing to change"}},
	{"port list --node m1", 0, []string{"52:54:00:77:08:12", "127.77.8.12", "false", "left", "m1"}},
	{"port delete 52:54:00:77:08:12", 0, []string{"removed"}},
	{"node validate m1 m2", 0, []string{"INTERFACE", "power", "deploy", "ok"}},
	{"node create --name m3 --driver redfish --group rack1", 0, []string{"m3 enrolled"}},
	{"node validate m3", outcome.ExitConflict, []string{"redfish_address", "no port", "not ready for power, boot", "→ farrier node set m3", "farrier port create m3"}},
	{"node delete m3", 0, nil},
	{"node manage m1 m2 --wait", 0, []string{"m1 is manageable", "m2 is manageable"}},
	{"node inspect m1 --wait", 0, []string{"m1 is manageable"}},
	{"node inventory m1", 0, []string{"{"}},
	{"node clean m1 --step deploy.erase_devices_metadata --wait", 0, []string{"m1 is manageable"}},
	{"node waive-wipe m1 --reason new", 0, []string{"waived"}},
	{"node provide m1 m2 --wait", 0, []string{"m1 is available", "m2 is available"}},
	{"node watch m1 --until-settled", 0, []string{"m1  available"}},
	{"node watch --timeout 100ms", 0, nil},
	{"node deploy m1 --image http://127.0.0.1/x.raw --sha256 SHA --wait", 0, []string{"m1 is active"}},
	{"node list", 0, []string{"m1", "active", "m2", "available"}},
	{"node rebuild m1 --wait", 0, []string{"m1 is active"}},
	{"node power off m1 --wait", 0, []string{"m1 is power off"}},
	{"node power on m1 --wait", 0, []string{"m1 is power on"}},
	{"node power reboot m1 --wait", 0, []string{"m1 is power on"}},
	{"node power soft-reboot m1 --wait", 0, []string{"m1 is power on"}},
	{"node power soft-off m1 --wait", 0, []string{"m1 is power off"}},
	{"node maintenance set m1 m2 --reason cabling", 0, []string{"m1: maintenance on", "m2: maintenance on"}},
	{"node show m1", 0, []string{"yes: cabling"}},
	{"node maintenance unset m1 m2", 0, []string{"m2: maintenance off"}},

	{"lock acquire m1 --purpose cabling", 0, []string{"farrier lock release m1 --token 1."}},
	{"lock list", 0, []string{"cabling", " 1."}},
	{"lock acquire m1 --purpose more --patient --timeout 4s", outcome.ExitConflict, []string{"holder", "cabling", "farrier lock"}},
	{"lock release m1 --token 1.1", outcome.ExitConflict, []string{"→"}},
	{"lock break m1 --reason done", 0, []string{"broken"}},
	{"lock acquire m1 --purpose again", 0, nil},
	{"lock release m1 --token TOKEN", 0, []string{"m1 released"}},
	{"lock list -o json", 0, []string{`"locks": []`}},
	{"node undeploy m1 --wait", 0, []string{"m1 is available"}},

	{"node set m2 --driver-info fake_boot_fault=silent", 0, nil},
	{"node deploy m2 --image http://127.0.0.1/x.raw --sha256 SHA", 0, []string{"farrier node watch m2"}},
	{"node deploy m2 --image http://127.0.0.1/x.raw --sha256 SHA --lock-wait 0s", outcome.ExitConflict, []string{"→"}},
	{"node abort m2 --wait", 0, []string{"m2 is deploy failed"}},
	{"node power on m2 --wait", 0, []string{"m2 is power on"}},
	{"node undeploy m2 --timeout 5s --wait", outcome.ExitUnavailable, []string{"the work goes on: farrier node watch m2"}},

	{"ring show", 0, []string{"rack1", "fake-hardware"}},
	{"ring show --group nosuch", outcome.ExitNotFound, []string{"nosuch"}},
	{"ring explain m1", 0, []string{"VERDICT", "owner"}},
	{"ring rebalance --dry-run", 0, []string{"moves"}},
	{"agent drain rack1-b", 0, []string{"draining"}},
	{"agent undrain rack1-b", 0, []string{"takes machines again"}},
	{"agent remove rack1-b --force", 0, []string{"farrier agent token rack1-b"}},

	{"event list --node m1 --type node.provision_state --since 1h", 0, []string{"m1", "to=active"}},
	{"event list --type foo", outcome.ExitUsage, []string{"foo", "flow.opened"}},
	{"event tail --timeout 100ms", 0, nil},
	{"coordinator snapshot save DIR/state", 0, []string{"bytes written"}},
	{"coordinator snapshot restore DIR/state", outcome.ExitUsage, []string{"--yes"}},
	{"coordinator snapshot restore DIR/state --yes", 0, []string{"generation 2"}},
	{"node delete m1 --lock-wait 30s", 0, []string{"m1 deleted"}},
	{"node show m1", outcome.ExitNotFound, []string{"m1", "→"}},
}

// TestEveryCommand types the commands to a small site.
func TestEveryCommand(t *testing.T) {
	k := startSite(t, site.Config{Coordinators: 1, Machines: -1})
	var last answer
	for _, c := range everyCommand {
		said := strings.TrimSpace(last.out)
		words := strings.NewReplacer("DIR", k.dir, "ANSWER", said, "TOKEN", said[strings.LastIndex(said, " ")+1:], "SHA", strings.Repeat("ab", 32))
		var args []string
		for _, word := range strings.Fields(c.line) {
			args = append(args, words.Replace(word))
		}
		last = k.farrier(args...)
		if last.status != c.status {
			t.Errorf("farrier %s: status %d instead of %d\n%s%s", c.line, last.status, c.status, last.out, last.err)
			continue
		}
		for _, text := range c.says {
			if !strings.Contains(last.out+last.err, text) {
				t.Errorf("farrier %s does not say %q:\n%s%s", c.line, text, last.out, last.err)
			}
		}
	}
	types := strings.Join(offered(t, "event", "list", "--type", ""), ", ")
	if last = k.farrier("event", "list", "--type", "foo"); !strings.Contains(last.err, "the types are "+types+"\n") {
		t.Errorf("the shell is offered the event types %s, and the coordinators have %s", types, last.err)
	}
}

// TestTheShellOffersOtherValuesThanTheCoordinatorsKnow: the command line has a list of its own of the provision states.
func TestTheShellOffersOtherValuesThanTheCoordinatorsKnow(t *testing.T) {
	var states []string
	for _, s := range lifecycle.States() {
		states = append(states, s.String())
	}
	if got := offered(t, "node", "list", "--state", ""); !slices.Equal(got, states) {
		t.Errorf("provision states %q, want %q", got, states)
	}
}

// offered is what a shell is told for the last word of a line.
func offered(t *testing.T, line ...string) []string {
	t.Helper()
	var out, errOut bytes.Buffer
	root := cli.New("test", strings.NewReader(""), &out, &errOut)
	root.SetArgs(append([]string{"__complete"}, line...))
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1]
}

// TestNoCommandIsUntyped: a command that no test types is a command that does not work.
func TestNoCommandIsUntyped(t *testing.T) {
	var out bytes.Buffer
	root := cli.New("test", &out, &out, &out)
	var leaves []string
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			walk(child)
		}
		if !c.HasSubCommands() {
			leaves = append(leaves, strings.TrimPrefix(c.CommandPath(), root.Name()+" "))
		}
	}
	walk(root)
	for _, leaf := range leaves {
		if !slices.ContainsFunc(everyCommand, func(c typed) bool {
			line := strings.TrimPrefix(c.line, "--config "+filepath.Join("DIR", "alice")+" ")
			return c.status == 0 && (line == leaf || strings.HasPrefix(line, leaf+" ")) || leaf == "coordinator remove" && strings.HasPrefix(line, leaf)
		}) {
			t.Errorf("no line of everyCommand is: farrier %s", leaf)
		}
	}
	if len(leaves) < 40 {
		t.Errorf("only %d commands were found", len(leaves))
	}
}
