package watch_test

import (
	"context"
	"testing"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

func watching(t *testing.T, w *world.World, member string, req *farrierv1.WatchRequest) *connect.ServerStreamForClient[farrierv1.WatchResponse] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := fc.NewWatchServiceClient(w.As(identity.RoleOperator, "alice"), w.URL[member]).Watch(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = stream.Close()
	})
	return stream
}

// next is the next item that is not a keep-alive.
func nextEvent(t *testing.T, s *connect.ServerStreamForClient[farrierv1.WatchResponse]) *farrierv1.Event {
	t.Helper()
	for s.Receive() {
		if e := s.Msg().GetEvent(); e != nil {
			return e
		}
	}
	t.Fatalf("the watch ended: %v", s.Err())
	return nil
}

func TestWatchOnAFollower(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	s := watching(t, w, "c2", &farrierv1.WatchRequest{Types: []string{"node.created", "node.deleted"}, Progress: true})
	if !s.Receive() || s.Msg().GetSynced() == nil {
		t.Fatalf("a watch begins with synced: %v, %v", s.Msg(), s.Err())
	}
	n := world.MustCreate(t, w.Nodes("c1"), world.Web(1))
	created := nextEvent(t, s)
	if created.GetType() != "node.created" || created.GetNode() != n.GetId() || created.GetActor() != "operator alice" || created.GetNodeName() != "web-1" {
		t.Errorf("event %v", created)
	}
	if _, err := w.Nodes("c1").DeleteNode(t.Context(), &farrierv1.DeleteNodeRequest{Node: "web-1"}); err != nil {
		t.Fatal(err)
	}
	if e := nextEvent(t, s); e.GetType() != "node.deleted" {
		t.Errorf("event %v", e)
	}
	again := watching(t, w, "c1", &farrierv1.WatchRequest{After: created.GetPosition(), Nodes: []string{n.GetId()}, Types: []string{"node.created", "node.deleted"}})
	if e := nextEvent(t, again); e.GetType() != "node.deleted" {
		t.Errorf("after the position of the first comes %v", e)
	}
}

// TestWatchOfACutOffMemberEnds: a member that reaches no leader cannot say that all was sent.
func TestWatchOfACutOffMemberEnds(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	s := watching(t, w, "c2", &farrierv1.WatchRequest{})
	for range 2 { // at the start, and once the leader was asked again
		if !s.Receive() || s.Msg().GetSynced() == nil {
			t.Fatalf("no synced: %v, %v", s.Msg(), s.Err())
		}
	}
	w.Lead("")
	for s.Receive() { // what was on its way
	}
	world.WantKind(t, s.Err(), fault.Unavailable)
}

func TestWatchBounds(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	s := watching(t, w, "c1", &farrierv1.WatchRequest{Nodes: []string{"nobody"}})
	if s.Receive() {
		t.Fatalf("received %v", s.Msg())
	}
	world.WantKind(t, s.Err(), fault.NotFound)
	for range 2 { // MaxWatchers of the test
		if s := watching(t, w, "c1", &farrierv1.WatchRequest{}); !s.Receive() {
			t.Fatal(s.Err())
		}
	}
	s = watching(t, w, "c1", &farrierv1.WatchRequest{})
	if s.Receive() {
		t.Fatalf("received %v", s.Msg())
	}
	world.WantKind(t, s.Err(), fault.Busy)
}

// TestAWatchThatSeesNothingBecauseItIsWrong: silence looks like an answer.
func TestAWatchThatSeesNothingBecauseItIsWrong(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	for what, req := range map[string]*farrierv1.WatchRequest{
		"an unknown type": {Types: []string{"foo"}}, "a position beyond the log": {After: &farrierv1.Position{Index: 1 << 40}},
	} {
		s := watching(t, w, "c1", req)
		if s.Receive() {
			t.Errorf("%s: %v", what, s.Msg())
		}
		world.WantKind(t, s.Err(), fault.Invalid)
	}
}

// TestRevokedOperatorGoesOnWatching: an open stream ends with the certificate.
func TestRevokedOperatorGoesOnWatching(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	s, err := fc.NewWatchServiceClient(w.As(identity.RoleOperator, "bob"), w.URL["c2"]).Watch(t.Context(), &farrierv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Receive() {
		t.Fatal(s.Err())
	}
	w.Apply(t, command.RevokeCertificates{Role: "operator", Name: "bob"})
	for s.Receive() { // the event of it, at most
	}
	world.WantKind(t, s.Err(), fault.Denied)
}
