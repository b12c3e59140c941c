package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

func TestCreateNode(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	c := w.Nodes("c1")
	n := world.MustCreate(t, c, world.Web(1))
	if n.GetProvisionState() != "enroll" || n.GetAgent() != "a1" || n.GetGroup() != "default" || n.GetVersion() == 0 {
		t.Errorf("created %v", n)
	}
	if n.GetDriverInfo()["redfish_password"] != "******" || n.GetDriverInfo()["redfish_username"] != "root" {
		t.Errorf("driver info %v", n.GetDriverInfo())
	}
	if len(n.GetPorts()) != 1 || n.GetPorts()[0].GetAddress() != "52:54:00:00:00:01" || !n.GetPorts()[0].GetPxeEnabled() {
		t.Errorf("ports %v", n.GetPorts())
	}
	stored, _ := w.Newest().Node(node.ID(n.GetId()))
	box := stored.Secrets["redfish_password"]
	plain, err := w.Keys.Open(box.KeyID, box.Box, "node/"+n.GetId()+"/redfish_password")
	if err != nil || string(plain) != "hunter2" {
		t.Errorf("sealed password: %q, %v", plain, err)
	}
	if _, there := stored.DriverInfo["redfish_password"]; there {
		t.Error("the password is stored in clear")
	}
}

func TestBadNodes(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	c := w.Nodes("c1")
	world.MustCreate(t, c, world.Web(1))
	for _, tt := range []struct {
		what   string
		change func(*farrierv1.Node)
		kind   fault.Kind
		field  string
	}{
		{"duplicate name", func(n *farrierv1.Node) { n.Name = "web-1" }, fault.Exists, "node.name"},
		{"duplicate MAC", func(n *farrierv1.Node) { n.Ports[0].Address = "52:54:00:00:00:01" }, fault.Exists, "port.address"},
		{"wrong MAC", func(n *farrierv1.Node) { n.Ports[0].Address = "52:54:00" }, fault.Invalid, "node.ports[0].address"},
		{"the same MAC twice", func(n *farrierv1.Node) { n.Ports = append(n.Ports, n.Ports[0]) }, fault.Invalid, "node.ports[1].address"},
		{"unknown driver", func(n *farrierv1.Node) { n.Driver = "floppy" }, fault.Invalid, "node.driver"},
		{"no driver", func(n *farrierv1.Node) { n.Driver = "" }, fault.Invalid, "node.driver"},
		{"no agent in the group", func(n *farrierv1.Node) { n.Group = "rack9" }, fault.NoAgent, ""},
		{"a bad name", func(n *farrierv1.Node) { n.Name = "a b" }, fault.Invalid, "node.name"},
		{"a bad id", func(n *farrierv1.Node) { n.Id = "7" }, fault.Invalid, "node.id"},
		{"credentials in the address", func(n *farrierv1.Node) { n.DriverInfo["redfish_address"] = "https://u:p@h" }, fault.Invalid, "driver_info.redfish_address"},
		{"a hidden secret from nowhere", func(n *farrierv1.Node) { n.DriverInfo["redfish_password"] = "******" }, fault.Invalid, "driver_info.redfish_password"},
		{"a bad trait", func(n *farrierv1.Node) { n.Traits = []string{"fast"} }, fault.Invalid, "node.traits"},
		{"a bad boot mode", func(n *farrierv1.Node) { n.BootMode = "floppy" }, fault.Invalid, "node.boot_mode"},
	} {
		n := world.Web(2)
		tt.change(n)
		_, err := c.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: n})
		t.Run(tt.what, func(t *testing.T) {
			d := world.WantKind(t, err, tt.kind)
			if d.GetField() != tt.field {
				t.Errorf("field %q, want %q", d.GetField(), tt.field)
			}
			if tt.kind != fault.Invalid && tt.kind != fault.Exists && d.GetHelp() == "" {
				t.Errorf("no advice: %v", d)
			}
		})
	}
	if got := w.Newest().NodeCount(); got != 1 {
		t.Errorf("%d nodes, want 1: a refused node was created", got)
	}
}

func TestBulkCreateIsRepeatable(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	var req farrierv1.CreateNodesRequest
	for i := range 300 {
		req.Nodes = append(req.Nodes, world.Web(i))
	}
	req.Nodes[7].Name = "no good"
	c := fc.NewNodeServiceClient(w.As(identity.RoleOperator, "alice"), w.URL["c1"], world.RequestID("0123456789abcdef", 1))
	first, err := c.CreateNodes(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range first.GetResults() {
		if (r.GetError() == nil) != (i != 7) {
			t.Errorf("result %d: %v", i, r)
		}
	}
	again, err := c.CreateNodes(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range again.GetResults() {
		if r.GetId() != first.GetResults()[i].GetId() {
			t.Errorf("result %d of the repeat: %v", i, r)
		}
	}
	if got := w.Newest().NodeCount(); got != 299 {
		t.Errorf("%d nodes, want 299", got)
	}
}

func TestUpdateNode(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	c := w.Nodes("c1")
	n := world.MustCreate(t, c, world.Web(1))
	update := func(change *farrierv1.Node, version uint64, paths ...string) (*farrierv1.Node, error) {
		change.Id = n.GetId()
		res, err := c.UpdateNode(t.Context(), &farrierv1.UpdateNodeRequest{Node: change, Version: version, Mask: &fieldmaskpb.FieldMask{Paths: paths}})
		return res.GetNode(), err
	}
	got, err := update(&farrierv1.Node{Description: "rack 1", Traits: []string{"CUSTOM_B", "CUSTOM_A", "CUSTOM_B"}}, n.GetVersion(), "description", "traits")
	if err != nil || got.GetDescription() != "rack 1" || !slices.Equal(got.GetTraits(), []string{"CUSTOM_A", "CUSTOM_B"}) || got.GetName() != "web-1" {
		t.Fatalf("update: %v, %v", got, err)
	}
	_, err = update(&farrierv1.Node{Description: "late"}, n.GetVersion(), "description")
	world.WantKind(t, err, fault.VersionConflict)
	_, err = update(&farrierv1.Node{Description: "late"}, 0)
	world.WantKind(t, err, fault.Invalid)
	_, err = update(&farrierv1.Node{ProvisionState: "active"}, 0, "provision_state")
	world.WantKind(t, err, fault.Invalid)
	_, err = update(&farrierv1.Node{Driver: "fake-hardware", Group: "rack9"}, 0, "driver", "group")
	world.WantKind(t, err, fault.NoAgent)

	got, err = update(&farrierv1.Node{DriverInfo: map[string]string{"redfish_username": "admin"}}, 0, "driver_info.redfish_username")
	if err != nil || got.GetDriverInfo()["redfish_username"] != "admin" || got.GetDriverInfo()["redfish_password"] != "******" {
		t.Fatalf("one key: %v, %v", got.GetDriverInfo(), err)
	}
	got, err = update(&farrierv1.Node{DriverInfo: map[string]string{"redfish_address": "10.0.0.2", "redfish_password": "******"}}, 0, "driver_info")
	if err != nil || len(got.GetDriverInfo()) != 2 {
		t.Fatalf("the whole map: %v, %v", got.GetDriverInfo(), err)
	}
	stored, _ := w.Newest().Node(node.ID(n.GetId()))
	box := stored.Secrets["redfish_password"]
	if plain, err := w.Keys.Open(box.KeyID, box.Box, "node/"+n.GetId()+"/redfish_password"); err != nil || string(plain) != "hunter2" {
		t.Errorf("the hidden password did not stay: %q, %v", plain, err)
	}
	got, err = update(&farrierv1.Node{}, 0, "driver_info.redfish_password")
	if _, there := got.GetDriverInfo()["redfish_password"]; err != nil || there {
		t.Errorf("a key without value goes: %v, %v", got.GetDriverInfo(), err)
	}
}

func TestProvisionChecks(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	c := w.Nodes("c1")
	n := world.MustCreate(t, c, world.Web(1))
	ask := func(req *farrierv1.SetProvisionStateRequest) error {
		req.Node = "web-1"
		_, err := c.SetProvisionState(t.Context(), req)
		return err
	}
	if d := world.WantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "active"}), fault.IllegalState); !slices.Contains(d.GetLegalVerbs(), "manage") {
		t.Errorf("legal verbs %v", d.GetLegalVerbs())
	}
	world.WantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "explode"}), fault.Invalid)
	world.WantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", Deploy: &farrierv1.DeployArgs{}}), fault.Invalid)
	world.WantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", CleanSteps: []*farrierv1.CleanStep{{}}}), fault.Invalid)
	world.WantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", Wait: &farrierv1.LockWait{Wait: durationpb.New(-time.Second)}}), fault.Invalid)

	bare := world.Web(2)
	delete(bare.DriverInfo, "redfish_password")
	world.MustCreate(t, c, bare)
	_, err := c.SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: "web-2", Verb: "manage"})
	if d := world.WantKind(t, err, fault.Invalid); d.GetField() != "node.driver_info.redfish_password" {
		t.Errorf("missing credential: field %q", d.GetField())
	}

	if err := ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", Wait: &farrierv1.LockWait{Patient: true}}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	if err != nil || got.GetNode().GetProvisionState() != "verifying" || got.GetNode().GetFlow().GetState() != "open" ||
		got.GetNode().GetLock().GetHolder() != "agent a1" || len(got.GetNode().GetFlow().GetSteps()) == 0 {
		t.Errorf("after manage: %v, %v", got, err)
	}
	if last := w.LastWait(); last != -1 {
		t.Errorf("a patient wait is %v", last)
	}
	_, err = c.SetPowerState(t.Context(), &farrierv1.SetPowerStateRequest{Node: "web-1", Target: "power on"})
	if d := world.WantKind(t, err, fault.Locked); d.GetLock().GetHolder() != "agent a1" || d.GetLock().GetPurpose() == "" || d.GetLock().GetToken() == 0 || d.GetLock().GetSince() == nil {
		t.Errorf("lock detail %v", d.GetLock())
	}
	_, err = c.SetPowerState(t.Context(), &farrierv1.SetPowerStateRequest{Node: "web-1", Target: "fly"})
	world.WantKind(t, err, fault.Invalid)

	w.Apply(t, command.CloseSession{Session: "s-a1", Reason: "test"})
	_, err = c.SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: "web-2", Verb: "manage"})
	if err == nil {
		t.Error("a node without an agent moved")
	}
	_ = n
}

func TestListNodes(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	c := w.Nodes("c2")
	for i := range 25 {
		n := world.Web(24 - i)
		n.ResourceClass = []string{"big", "small"}[i%2]
		world.MustCreate(t, c, n)
	}
	walk := func(req *farrierv1.ListNodesRequest) (names []string, total uint64) {
		for {
			res, err := c.ListNodes(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range res.GetNodes() {
				names = append(names, n.GetName())
			}
			if res.GetIndex() == 0 {
				t.Error("a list without an index")
			}
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				return names, res.GetTotal()
			}
		}
	}
	for _, tt := range []struct {
		req    *farrierv1.ListNodesRequest
		count  int
		sorted func(a, b string) int
	}{
		{&farrierv1.ListNodesRequest{}, 25, nil},
		{&farrierv1.ListNodesRequest{PageSize: 7}, 25, nil},
		{&farrierv1.ListNodesRequest{PageSize: 4, OrderBy: "name"}, 25, strings.Compare},
		{&farrierv1.ListNodesRequest{PageSize: 25, OrderBy: "name desc"}, 25, func(a, b string) int { return strings.Compare(b, a) }},
		{&farrierv1.ListNodesRequest{PageSize: 3, OrderBy: "updated_at desc"}, 25, nil},
		{&farrierv1.ListNodesRequest{PageSize: 3, Filter: &farrierv1.NodeFilter{ResourceClass: "big"}}, 13, nil},
		{&farrierv1.ListNodesRequest{PageSize: 3, OrderBy: "name", Filter: &farrierv1.NodeFilter{NameContains: "web-1"}}, 11, strings.Compare},
		{&farrierv1.ListNodesRequest{Filter: &farrierv1.NodeFilter{ProvisionState: []string{"active"}}}, 0, nil},
		{&farrierv1.ListNodesRequest{Filter: &farrierv1.NodeFilter{Agent: "a1", Driver: "redfish", Group: "default"}, Stale: true}, 25, nil},
	} {
		names, total := walk(tt.req)
		unique := slices.Compact(slices.Sorted(slices.Values(names)))
		if len(names) != tt.count || len(unique) != tt.count || total != uint64(tt.count) {
			t.Errorf("%v: %d names, %d different, total %d, want %d", tt.req, len(names), len(unique), total, tt.count)
		}
		if tt.sorted != nil && !slices.IsSortedFunc(names, tt.sorted) {
			t.Errorf("%v: not in order: %v", tt.req, names)
		}
	}
	res, err := c.ListNodes(t.Context(), &farrierv1.ListNodesRequest{PageSize: 1, Mask: &fieldmaskpb.FieldMask{Paths: []string{"name"}}})
	if err != nil || res.GetNodes()[0].GetName() == "" || res.GetNodes()[0].GetId() != "" {
		t.Errorf("mask: %v, %v", res, err)
	}
	first, err := c.ListNodes(t.Context(), &farrierv1.ListNodesRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	for what, req := range map[string]*farrierv1.ListNodesRequest{
		"page size": {PageSize: 1001}, "order": {OrderBy: "colour"}, "direction": {OrderBy: "name up"}, "token": {PageToken: "!"},
		"token of another order": {OrderBy: "name", PageToken: first.GetNextPageToken()},
		"mask":                   {Mask: &fieldmaskpb.FieldMask{Paths: []string{"nope"}}},
	} {
		if _, err := c.ListNodes(t.Context(), req); err == nil {
			t.Errorf("a bad %s passed", what)
		} else {
			world.WantKind(t, err, fault.Invalid)
		}
	}
}
