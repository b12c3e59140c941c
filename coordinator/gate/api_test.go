package gate_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

func TestFollowersSendOn(t *testing.T) {
	w := world.New(t, []string{"c1", "c2", "c3"}, "a1")
	n := world.MustCreate(t, w.Nodes("c3"), world.Web(1))
	got, err := w.Nodes("c2").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	if err != nil || got.GetNode().GetId() != n.GetId() {
		t.Errorf("read on a follower: %v, %v", got, err)
	}
	evs, _, _ := w.Newest().Events(state.Position{}, 10000)
	if last := evs[len(evs)-1]; last.Actor != "operator alice" {
		t.Errorf("the leader wrote down %q, not the caller", last.Actor)
	}
	w.Lead("c2")
	world.MustCreate(t, w.Nodes("c3"), world.Web(2))
	world.MustCreate(t, w.Nodes("c1"), world.Web(3))
}

func TestNoLeaderIsNoQuorum(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	world.MustCreate(t, w.Nodes("c1"), world.Web(1))
	w.Lead("")
	c := w.Nodes("c2")
	_, err := c.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: world.Web(2)})
	world.WantKind(t, err, fault.NoQuorum)
	_, err = c.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	world.WantKind(t, err, fault.NoQuorum)
	if _, err := c.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1", Stale: true}); err != nil {
		t.Errorf("a stale read needs no leader: %v", err)
	}
}

// TestWaitsForTheLeader: a request that comes during an election is served once there is a leader.
func TestWaitsForTheLeader(t *testing.T) {
	w := world.NewPatient(t, time.Minute, []string{"c1", "c2"}, "a1")
	w.Lead("")
	done := make(chan error, 1)
	c := w.Nodes("c2")
	go func() {
		_, err := c.CreateNode(context.WithoutCancel(t.Context()), &farrierv1.CreateNodeRequest{Node: world.Web(1)})
		done <- err
	}()
	w.Lead("c1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestADeadLeader: the leader is known, and its address refuses connections.
func TestADeadLeader(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := fc.NewClusterServiceClient(w.As(identity.RoleCoordinator, "c9"), w.URL["c1"])
	if _, err := client.PutMember(t.Context(), &farrierv1.PutMemberRequest{FeatureLevel: 1, Member: &farrierv1.Member{Id: "c9",
		RaftAddress: ln.Addr().String(), ApiAddress: ln.Addr().String(), RackAddress: ln.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	w.Lead("c9")
	_, err = w.Nodes("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: world.Web(1)})
	world.WantKind(t, err, fault.Unavailable)
}

// TestDeposedLeader: a leader that finds out while it serves a request sends it to the next one.
func TestDeposedLeader(t *testing.T) {
	w := world.NewPatient(t, time.Minute, []string{"c1", "c2"}, "a1")
	for i, kind := range []fault.Kind{fault.NotLeader, fault.NoQuorum, fault.UnknownOutcome} {
		w.Lead("c1")
		w.FailOnce(fault.New(kind, "propose", "deposed"), "c2")
		c := fc.NewNodeServiceClient(w.As(identity.RoleOperator, "alice"), w.URL["c1"], world.RequestID("0123456789abcdef", i+1))
		if n := world.MustCreate(t, c, world.Web(i)); n.GetName() != world.Web(i).GetName() {
			t.Errorf("after %s: %v", kind, n)
		}
	}
	w.Lead("c1")
	w.FailOnce(fault.New(fault.UnknownOutcome, "propose", "deposed"), "c2")
	_, err := w.Nodes("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: world.Web(9)})
	world.WantKind(t, err, fault.UnknownOutcome) // without a request id, a repeat could do it twice
}
func TestTooLargeBody(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	for _, member := range []string{"c1", "c2"} {
		n := world.Web(1)
		n.Description = strings.Repeat("x", 1<<20)
		_, err := w.Nodes(member).CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: n})
		if d := world.WantKind(t, err, fault.TooLarge); d.GetHelp() == "" {
			t.Error("no advice")
		}
	}
	_, err := w.Nodes("c1").SetProvisionState(t.Context(), &farrierv1.SetProvisionStateRequest{Node: "x", Verb: "active"})
	world.WantKind(t, err, fault.NotFound)
}

func TestRequestIDs(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	alice := w.As(identity.RoleOperator, "alice")
	at := func(member string) fc.NodeServiceClient {
		return fc.NewNodeServiceClient(alice, w.URL[member], world.RequestID("0123456789abcdef", 1))
	}
	first := world.MustCreate(t, at("c1"), world.Web(1))
	if again := world.MustCreate(t, at("c2"), world.Web(1)); again.GetId() != first.GetId() {
		t.Errorf("the repeat made %s, want %s", again.GetId(), first.GetId())
	}
	_, err := at("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: world.Web(2)})
	world.WantKind(t, err, fault.Invalid) // the same id, another request
	if !w.Seen("0123456789abcdef") {
		t.Error("the client session was not kept alive")
	}
	bad := fc.NewNodeServiceClient(alice, w.URL["c1"], world.RequestID("UPPER-case!", 1))
	_, err = bad.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: world.Web(3)})
	world.WantKind(t, err, fault.Invalid)
}

// TestALargeJoinIsRefusedBeforeItIsRead: nobody has proved anything yet.
func TestALargeJoinIsRefusedBeforeItIsRead(t *testing.T) {
	w := world.New(t, []string{"c1"})
	c := fc.NewJoinServiceClient(w.As("", ""), w.URL["c1"])
	_, err := c.Join(t.Context(), &farrierv1.JoinRequest{Token: "farrier-join-x", CsrDer: make([]byte, 32<<10)})
	world.WantKind(t, err, fault.TooLarge)
	_, err = c.Join(t.Context(), &farrierv1.JoinRequest{Token: "farrier-join-x", CsrDer: make([]byte, 8<<10), IntermediateCsrDer: make([]byte, 8<<10)})
	world.WantKind(t, err, fault.Invalid)
}
