package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

func web(i int) *farrierv1.Node {
	return &farrierv1.Node{Name: fmt.Sprintf("web-%d", i), Driver: "redfish",
		DriverInfo: map[string]string{"redfish_address": "https://10.0.0.1", "redfish_username": "root", "redfish_password": "hunter2"},
		Ports:      []*farrierv1.Port{{Address: fmt.Sprintf("52-54-00-00-%02X-%02x", i/256, i%256)}}}
}

func mustCreate(t *testing.T, c fc.NodeServiceClient, n *farrierv1.Node) *farrierv1.Node {
	t.Helper()
	res, err := c.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: n})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetNode()
}

func TestCreateNode(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	c := w.nodes("c1")
	n := mustCreate(t, c, web(1))
	if n.GetProvisionState() != "enroll" || n.GetAgent() != "a1" || n.GetGroup() != "default" || n.GetVersion() == 0 {
		t.Errorf("created %v", n)
	}
	if n.GetDriverInfo()["redfish_password"] != "******" || n.GetDriverInfo()["redfish_username"] != "root" {
		t.Errorf("driver info %v", n.GetDriverInfo())
	}
	if len(n.GetPorts()) != 1 || n.GetPorts()[0].GetAddress() != "52:54:00:00:00:01" || !n.GetPorts()[0].GetPxeEnabled() {
		t.Errorf("ports %v", n.GetPorts())
	}
	stored, _ := w.view.Node(node.ID(n.GetId()))
	box := stored.Secrets["redfish_password"]
	plain, err := w.keys.Open(box.KeyID, box.Box, "node/"+n.GetId()+"/redfish_password")
	if err != nil || string(plain) != "hunter2" {
		t.Errorf("sealed password: %q, %v", plain, err)
	}
	if _, there := stored.DriverInfo["redfish_password"]; there {
		t.Error("the password is stored in clear")
	}
}

func TestBadNodes(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	c := w.nodes("c1")
	mustCreate(t, c, web(1))
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
		n := web(2)
		tt.change(n)
		_, err := c.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: n})
		t.Run(tt.what, func(t *testing.T) {
			d := wantKind(t, err, tt.kind)
			if d.GetField() != tt.field {
				t.Errorf("field %q, want %q", d.GetField(), tt.field)
			}
			if tt.kind != fault.Invalid && tt.kind != fault.Exists && d.GetHelp() == "" {
				t.Errorf("no advice: %v", d)
			}
		})
	}
	if got := w.view.NodeCount(); got != 1 {
		t.Errorf("%d nodes, want 1: a refused node was created", got)
	}
}

func TestTooLargeBody(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	for _, member := range []string{"c1", "c2"} {
		n := web(1)
		n.Description = strings.Repeat("x", 1<<20)
		_, err := w.nodes(member).CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: n})
		if d := wantKind(t, err, fault.TooLarge); d.GetHelp() == "" {
			t.Error("no advice")
		}
	}
	_, err := w.nodes("c1").SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: "x", Verb: "active"})
	wantKind(t, err, fault.NotFound)
}

func TestBulkCreateIsRepeatable(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	var req farrierv1.CreateNodesRequest
	for i := range 300 {
		req.Nodes = append(req.Nodes, web(i))
	}
	req.Nodes[7].Name = "no good"
	c := fc.NewNodeServiceClient(w.as(identity.RoleOperator, "alice"), w.url["c1"], requestID("0123456789abcdef", 1))
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
	if got := w.view.NodeCount(); got != 299 {
		t.Errorf("%d nodes, want 299", got)
	}
}

// requestID sends the same request id with every call.
func requestID(client string, seq int) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set(request.HeaderClient, client)
			req.Header().Set(request.HeaderSequence, fmt.Sprint(seq))
			return next(ctx, req)
		}
	}))
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	alice := w.as(identity.RoleOperator, "alice")
	at := func(member string) fc.NodeServiceClient {
		return fc.NewNodeServiceClient(alice, w.url[member], requestID("0123456789abcdef", 1))
	}
	first := mustCreate(t, at("c1"), web(1))
	if again := mustCreate(t, at("c2"), web(1)); again.GetId() != first.GetId() {
		t.Errorf("the repeat made %s, want %s", again.GetId(), first.GetId())
	}
	_, err := at("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(2)})
	wantKind(t, err, fault.Invalid) // the same id, another request
	if !w.seen["0123456789abcdef"] {
		t.Error("the client session was not kept alive")
	}
	bad := fc.NewNodeServiceClient(alice, w.url["c1"], requestID("UPPER-case!", 1))
	_, err = bad.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(3)})
	wantKind(t, err, fault.Invalid)
}

func TestUpdateNode(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	c := w.nodes("c1")
	n := mustCreate(t, c, web(1))
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
	wantKind(t, err, fault.VersionConflict)
	_, err = update(&farrierv1.Node{Description: "late"}, 0)
	wantKind(t, err, fault.Invalid)
	_, err = update(&farrierv1.Node{ProvisionState: "active"}, 0, "provision_state")
	wantKind(t, err, fault.Invalid)
	_, err = update(&farrierv1.Node{Driver: "fake-hardware", Group: "rack9"}, 0, "driver", "group")
	wantKind(t, err, fault.NoAgent)

	got, err = update(&farrierv1.Node{DriverInfo: map[string]string{"redfish_username": "admin"}}, 0, "driver_info.redfish_username")
	if err != nil || got.GetDriverInfo()["redfish_username"] != "admin" || got.GetDriverInfo()["redfish_password"] != "******" {
		t.Fatalf("one key: %v, %v", got.GetDriverInfo(), err)
	}
	got, err = update(&farrierv1.Node{DriverInfo: map[string]string{"redfish_address": "10.0.0.2", "redfish_password": "******"}}, 0, "driver_info")
	if err != nil || len(got.GetDriverInfo()) != 2 {
		t.Fatalf("the whole map: %v, %v", got.GetDriverInfo(), err)
	}
	stored, _ := w.view.Node(node.ID(n.GetId()))
	box := stored.Secrets["redfish_password"]
	if plain, err := w.keys.Open(box.KeyID, box.Box, "node/"+n.GetId()+"/redfish_password"); err != nil || string(plain) != "hunter2" {
		t.Errorf("the hidden password did not stay: %q, %v", plain, err)
	}
	got, err = update(&farrierv1.Node{}, 0, "driver_info.redfish_password")
	if _, there := got.GetDriverInfo()["redfish_password"]; err != nil || there {
		t.Errorf("a key without value goes: %v, %v", got.GetDriverInfo(), err)
	}
}

func TestProvisionChecks(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	c := w.nodes("c1")
	n := mustCreate(t, c, web(1))
	ask := func(req *farrierv1.SetProvisionStateRequest) error {
		req.Node = "web-1"
		_, err := c.SetProvisionState(t.Context(), req)
		return err
	}
	if d := wantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "active"}), fault.IllegalState); !slices.Contains(d.GetLegalVerbs(), "manage") {
		t.Errorf("legal verbs %v", d.GetLegalVerbs())
	}
	wantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "explode"}), fault.Invalid)
	wantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", Deploy: &farrierv1.DeployArgs{}}), fault.Invalid)
	wantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", CleanSteps: []*farrierv1.CleanStep{{}}}), fault.Invalid)
	wantKind(t, ask(&farrierv1.SetProvisionStateRequest{Verb: "manage", Wait: &farrierv1.LockWait{Wait: durationpb.New(-time.Second)}}), fault.Invalid)

	bare := web(2)
	delete(bare.DriverInfo, "redfish_password")
	mustCreate(t, c, bare)
	_, err := c.SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: "web-2", Verb: "manage"})
	if d := wantKind(t, err, fault.Invalid); d.GetField() != "node.driver_info.redfish_password" {
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
	if last := w.waits[len(w.waits)-1]; last != -1 {
		t.Errorf("a patient wait is %v", last)
	}
	_, err = c.SetPowerState(t.Context(), &farrierv1.SetPowerStateRequest{Node: "web-1", Target: "power on"})
	if d := wantKind(t, err, fault.Locked); d.GetLock().GetHolder() != "agent a1" || d.GetLock().GetPurpose() == "" || d.GetLock().GetToken() == 0 || d.GetLock().GetSince() == nil {
		t.Errorf("lock detail %v", d.GetLock())
	}
	_, err = c.SetPowerState(t.Context(), &farrierv1.SetPowerStateRequest{Node: "web-1", Target: "fly"})
	wantKind(t, err, fault.Invalid)

	w.apply(t, command.CloseSession{Session: "s-a1", Reason: "test"})
	_, err = c.SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: "web-2", Verb: "manage"})
	if err == nil {
		t.Error("a node without an agent moved")
	}
	_ = n
}

func TestListNodes(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	c := w.nodes("c2")
	for i := range 25 {
		n := web(24 - i)
		n.ResourceClass = []string{"big", "small"}[i%2]
		mustCreate(t, c, n)
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
	for what, req := range map[string]*farrierv1.ListNodesRequest{
		"page size": {PageSize: 1001}, "order": {OrderBy: "colour"}, "direction": {OrderBy: "name up"}, "token": {PageToken: "!"},
		"token of another order": {OrderBy: "name", PageToken: order{by: "id"}.token(&node.Node{ID: "x"})},
		"mask":                   {Mask: &fieldmaskpb.FieldMask{Paths: []string{"nope"}}},
	} {
		if _, err := c.ListNodes(t.Context(), req); err == nil {
			t.Errorf("a bad %s passed", what)
		} else {
			wantKind(t, err, fault.Invalid)
		}
	}
}
