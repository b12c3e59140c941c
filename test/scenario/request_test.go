package scenario

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/cmd/farrier/outcome"
	"github.com/farrier-project/farrier/pkg/fault"
)

func contains(f *fault.Error, text string) bool {
	return strings.Contains(f.Error(), text) || strings.Contains(f.Help, text)
}

func equal(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// file writes a file for the command line.
func (k *kit) file(name string, size int) string {
	k.t.Helper()
	path := filepath.Join(k.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return path
}

func (k *kit) create(n *farrierv1.Node) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := k.Client.Nodes.CreateNode(ctx, &farrierv1.CreateNodeRequest{Node: n})
		return err
	}
}

func (k *kit) provision(req *farrierv1.SetProvisionStateRequest) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := k.Client.Nodes.SetProvisionState(ctx, req)
		return err
	}
}

// requests are refused at once.
func (k *kit) requests() {
	have := k.Machines[twin]
	fresh := func(change func(n *farrierv1.Node)) func(context.Context) error {
		n := &farrierv1.Node{Name: "new-1", Driver: "redfish", Group: "rack1", Ports: []*farrierv1.Port{{Address: "52:54:00:77:09:01"}}}
		change(n)
		return k.create(n)
	}
	create := func(flags ...string) []string {
		return append([]string{"node", "create", "--group", "rack1"}, flags...)
	}
	big := k.file("big", 64<<10+1)
	var body []string
	whole := k.file("whole", 60<<10)
	for _, key := range strings.Split("abcdefghijklmnopqrst", "") {
		body = append(body, "--extra", key+"=@"+whole)
	}
	for _, w := range []wrong{
		{name: "wrong MAC", kind: fault.Invalid, status: outcome.ExitUsage, says: []string{"52:54:00:zz", "six pairs of hex digits"},
			call:   fresh(func(n *farrierv1.Node) { n.Ports[0].Address = "52:54:00:zz:09:01" }),
			args:   create("--name", "new-1", "--mac", "52:54:00:zz:09:01"),
			detail: &fault.FieldDetail{Field: "node.ports[0].address"}},
		{name: "duplicate name", kind: fault.Exists, status: outcome.ExitConflict, says: []string{have.Name},
			call: fresh(func(n *farrierv1.Node) { n.Name = have.Name }),
			args: create("--name", have.Name, "--mac", "52:54:00:77:09:01")},
		{name: "duplicate MAC", kind: fault.Exists, status: outcome.ExitConflict, says: []string{have.MAC, have.Name},
			call: fresh(func(n *farrierv1.Node) { n.Ports[0].Address = strings.ToUpper(have.MAC) }),
			args: create("--name", "new-1", "--mac", strings.ReplaceAll(have.MAC, ":", "-"))},
		{name: "unknown driver", kind: fault.Invalid, status: outcome.ExitUsage, says: []string{"ipmi", "redfish"},
			call:   fresh(func(n *farrierv1.Node) { n.Driver = "ipmi" }),
			args:   create("--name", "new-1", "--driver", "ipmi", "--mac", "52:54:00:77:09:01"),
			detail: &fault.FieldDetail{Field: "node.driver"}},
		{name: "group without an agent", kind: fault.NoAgent, status: outcome.ExitUnavailable, says: []string{"rack9", "rack1-a"},
			call: fresh(func(n *farrierv1.Node) { n.Group = "rack9" }),
			args: []string{"node", "create", "--name", "new-1", "--group", "rack9", "--mac", "52:54:00:77:09:01"}},
		{name: "body too large", kind: fault.TooLarge, status: outcome.ExitUsage, says: []string{"1048576"},
			call: fresh(func(n *farrierv1.Node) { n.Description = strings.Repeat("x", 1<<20) }),
			args: create(append([]string{"--name", "new-1"}, body...)...)},
		{name: "user data too large", kind: fault.TooLarge, status: outcome.ExitUsage, says: []string{"65537", "65536"},
			call: k.provision(&farrierv1.SetProvisionStateRequest{Node: k.Machines[plain].Name, Verb: "active",
				Deploy: &farrierv1.DeployArgs{Image: k.deployArgs("x").Image, UserData: []byte(strings.Repeat("x", 64<<10+1))}}),
			args: k.deploy(k.Machines[plain].Name, "--user-data", big)},
		{name: "illegal verb", kind: fault.IllegalState, status: outcome.ExitConflict, says: []string{have.Name, "enroll", "manage"},
			call:   k.provision(&farrierv1.SetProvisionStateRequest{Node: have.Name, Verb: "active", Deploy: k.deployArgs(have.Name)}),
			args:   k.deploy(have.Name),
			detail: &fault.StateDetail{LegalVerbs: []string{"manage"}}},
		{name: "no such verb", kind: fault.Invalid, status: outcome.ExitUsage, says: []string{"polish", "manage"},
			call:   k.provision(&farrierv1.SetProvisionStateRequest{Node: have.Name, Verb: "polish"}),
			detail: &fault.FieldDetail{Field: "verb"}},
		{name: "no such node", kind: fault.NotFound, status: outcome.ExitNotFound, says: []string{"nobody", "farrier node list"},
			call: k.provision(&farrierv1.SetProvisionStateRequest{Node: "nobody", Verb: "manage"}),
			args: []string{"node", "manage", "nobody"}},
		{name: "half a digest", kind: fault.Invalid, status: outcome.ExitUsage, says: []string{"abc", "sha256sum"},
			call: k.provision(&farrierv1.SetProvisionStateRequest{Node: k.Machines[plain].Name, Verb: "active",
				Deploy: &farrierv1.DeployArgs{Image: &farrierv1.Image{Url: k.ImageURL, Sha256: "abc", Format: "raw"}}}),
			args:   []string{"node", "deploy", k.Machines[plain].Name, "--image", k.ImageURL, "--sha256", "abc"},
			detail: &fault.FieldDetail{Field: "deploy.image.sha256"}},
		{name: "no image", args: []string{"node", "deploy", have.Name}, status: outcome.ExitUsage, says: []string{"--image"}},
		{name: "unknown command", args: []string{"node", "polish"}, status: outcome.ExitUsage, says: []string{"polish", "--help"}},
		{name: "unknown noun", args: []string{"machine", "list"}, status: outcome.ExitUsage, says: []string{"machine", "--help"}},
		{name: "unknown flag", args: []string{"node", "list", "--colour"}, status: outcome.ExitUsage, says: []string{"--colour", "--help"}},
		{name: "unknown output", args: []string{"node", "list", "-o", "xml"}, status: outcome.ExitUsage, says: []string{"xml", "json"}},
		{name: "too few arguments", args: []string{"node", "show"}, status: outcome.ExitUsage, says: []string{"NODE"}},
		{name: "no configuration", args: []string{"--config", "/nonexistent", "node", "list"}, status: outcome.ExitNoConfig, says: []string{"FARRIER_CONFIG"}},
	} {
		k.sub(w.name, func(k *kit) { k.refuse(w) })
	}
	k.sub("the right request succeeds", func(k *kit) {
		out := k.done(create("--name", "new-1", "--mac", "52-54-00-77-09-01")...)
		if !strings.Contains(out.out, "new-1 enrolled") || !strings.Contains(out.out, "farrier node manage new-1") {
			k.t.Errorf("create says %q", out.out)
		}
		k.refuse(wrong{kind: fault.Invalid, status: outcome.ExitUsage, says: []string{"redfish_address", "missing", "farrier node set new-1"},
			call:   k.provision(&farrierv1.SetProvisionStateRequest{Node: "new-1", Verb: "manage"}),
			args:   []string{"node", "manage", "new-1"},
			detail: &fault.FieldDetail{Field: "node.driver_info.redfish_address"}})
		k.done("node", "delete", "new-1")
	})
}

// deploy is the command line of a deploy of the site's image.
func (k *kit) deploy(node string, flags ...string) []string {
	return append([]string{"node", "deploy", node, "--image", k.ImageURL, "--sha256", k.Image.SHA256}, flags...)
}

// sub runs a part of the test under a name of its own.
func (k *kit) sub(name string, run func(k *kit)) {
	t := k.t
	t.Run(name, func(st *testing.T) { run(&kit{Site: k.Site, t: st, dir: k.dir}) })
}
