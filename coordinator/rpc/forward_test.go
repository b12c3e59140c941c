package rpc

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

func TestFollowersSendOn(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2", "c3"}, "a1")
	n := mustCreate(t, w.nodes("c3"), web(1))
	got, err := w.nodes("c2").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	if err != nil || got.GetNode().GetId() != n.GetId() {
		t.Errorf("read on a follower: %v, %v", got, err)
	}
	evs, _, _ := w.view.Events(state.Position{}, 10000)
	if last := evs[len(evs)-1]; last.Actor != "operator alice" {
		t.Errorf("the leader wrote down %q, not the caller", last.Actor)
	}
	w.lead("c2")
	mustCreate(t, w.nodes("c3"), web(2))
	mustCreate(t, w.nodes("c1"), web(3))
}

// TestMemberThatIsBehindBlamedTheQuorum: a member that applies nothing told its readers to start more coordinators.
func TestMemberThatIsBehindBlamedTheQuorum(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	mustCreate(t, w.nodes("c1"), web(1))
	w.mu.Lock()
	w.behind = "c2"
	w.mu.Unlock()
	_, err := w.nodes("c2").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	if d := wantKind(t, err, fault.Timeout); !strings.Contains(d.GetMessage(), "coordinator c2 is behind") || !strings.Contains(d.GetHelp(), "another coordinator") {
		t.Errorf("%s; %s", d.GetMessage(), d.GetHelp())
	}
	if _, err := w.nodes("c1").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"}); err != nil {
		t.Error(err)
	}
}

// TestBackupOfADeposedLeader: a member that no leader confirmed saved its old state as the cluster's.
func TestBackupOfADeposedLeader(t *testing.T) {
	w := newWorld(t, []string{"c1"})
	w.lead("")
	stream, err := w.clusterClient("c1").SaveSnapshot(t.Context(), &farrierv1.SaveSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if stream.Receive() {
		t.Errorf("%d bytes were saved", len(stream.Msg().GetChunk()))
	}
	wantKind(t, stream.Err(), fault.NoQuorum)
}

func TestNoLeaderIsNoQuorum(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	mustCreate(t, w.nodes("c1"), web(1))
	w.lead("")
	c := w.nodes("c2")
	_, err := c.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(2)})
	wantKind(t, err, fault.NoQuorum)
	_, err = c.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	wantKind(t, err, fault.NoQuorum)
	if _, err := c.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1", Stale: true}); err != nil {
		t.Errorf("a stale read needs no leader: %v", err)
	}
}

// TestACallersDeadlineWithoutALeaderWasAnInternalError: the caller's time ended before the member's own wait for a
// leader, and it was told of a defect.
func TestACallersDeadlineWithoutALeaderWasAnInternalError(t *testing.T) {
	w := newPatientWorld(t, time.Minute, []string{"c1", "c2"}, "a1")
	w.lead("")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := w.apis["c2"].desk.Read(ctx, false)
	d := detailOf(t, refusal.Connect(err))
	if d.GetKind() != fault.Timeout.String() || !strings.Contains(d.GetMessage(), "no coordinator leads") || d.GetHelp() != refusal.NeedMajority {
		t.Errorf("the caller is told %v", d)
	}
}

// TestWaitsForTheLeader: a request that comes during an election is served once there is a leader.
func TestWaitsForTheLeader(t *testing.T) {
	w := newPatientWorld(t, time.Minute, []string{"c1", "c2"}, "a1")
	w.lead("")
	done := make(chan error, 1)
	c := w.nodes("c2")
	go func() {
		_, err := c.CreateNode(context.WithoutCancel(t.Context()), &farrierv1.CreateNodeRequest{Node: web(1)})
		done <- err
	}()
	w.lead("c1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestADeadLeader: the leader is known, and its address refuses connections.
func TestADeadLeader(t *testing.T) {
	w := newWorld(t, []string{"c1"}, "a1")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := fc.NewClusterServiceClient(w.as(identity.RoleCoordinator, "c9"), w.url["c1"])
	if _, err := client.PutMember(t.Context(), &farrierv1.PutMemberRequest{FeatureLevel: 1, Member: &farrierv1.Member{Id: "c9",
		RaftAddress: ln.Addr().String(), ApiAddress: ln.Addr().String(), RackAddress: ln.Addr().String()}}); err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	w.lead("c9")
	_, err = w.nodes("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(1)})
	wantKind(t, err, fault.Unavailable)
}

// TestForwardedOnlyOnce: a member that was sent a request and does not lead says so; it does not send it on again.
func TestForwardedOnlyOnce(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2", "c3"}, "a1")
	f := w.apis["c2"].leader
	local, err := f.Route(t.Context(), true)
	if local || !fault.Is(err, fault.NotLeader) {
		t.Fatalf("local %v, %v", local, err)
	}
	var e *fault.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if d, ok := e.Detail.(*fault.LeaderDetail); !ok || "https://"+d.Address != w.url["c1"] {
		t.Errorf("the leader is %+v", e.Detail)
	}
}

// TestDeposedLeader: a leader that finds out while it serves a request sends it to the next one.
func TestDeposedLeader(t *testing.T) {
	w := newPatientWorld(t, time.Minute, []string{"c1", "c2"}, "a1")
	for i, kind := range []fault.Kind{fault.NotLeader, fault.NoQuorum, fault.UnknownOutcome} {
		w.lead("c1")
		w.failOnce(fault.New(kind, "propose", "deposed"), "c2")
		c := fc.NewNodeServiceClient(w.as(identity.RoleOperator, "alice"), w.url["c1"], requestID("0123456789abcdef", i+1))
		if n := mustCreate(t, c, web(i)); n.GetName() != web(i).GetName() {
			t.Errorf("after %s: %v", kind, n)
		}
	}
	w.lead("c1")
	w.failOnce(fault.New(fault.UnknownOutcome, "propose", "deposed"), "c2")
	_, err := w.nodes("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(9)})
	wantKind(t, err, fault.UnknownOutcome) // without a request id, a repeat could do it twice
}
