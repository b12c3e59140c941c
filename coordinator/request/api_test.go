package request_test

import (
	"context"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

// TestMemberThatIsBehindBlamedTheQuorum: a member that applies nothing told its readers to start more coordinators.
func TestMemberThatIsBehindBlamedTheQuorum(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	world.MustCreate(t, w.Nodes("c1"), world.Web(1))
	w.Stop("c2")
	_, err := w.Nodes("c2").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	if d := world.WantKind(t, err, fault.Timeout); !strings.Contains(d.GetMessage(), "coordinator c2 is behind") || !strings.Contains(d.GetHelp(), "another coordinator") {
		t.Errorf("%s; %s", d.GetMessage(), d.GetHelp())
	}
	if _, err := w.Nodes("c1").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"}); err != nil {
		t.Error(err)
	}
}

// TestACallersDeadlineWithoutALeaderWasAnInternalError: the caller's time ended before the member's own wait for a
// leader, and it was told of a defect.
func TestACallersDeadlineWithoutALeaderWasAnInternalError(t *testing.T) {
	w := world.NewPatient(t, time.Minute, []string{"c1", "c2"}, "a1")
	w.Lead("")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := w.Desk("c2").Read(ctx, false)
	d := world.DetailOf(t, refusal.Connect(err))
	if d.GetKind() != fault.Timeout.String() || !strings.Contains(d.GetMessage(), "no coordinator leads") || d.GetHelp() != refusal.NeedMajority {
		t.Errorf("the caller is told %v", d)
	}
}

// TestRevokedOperatorWaitsForALock: a call that stays ends with the certificate.
func TestRevokedOperatorWaitsForALock(t *testing.T) {
	w := world.New(t, []string{"c1"})
	d := w.Desk("c1")
	wake, over := make(chan struct{}, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { over <- d.Guard(ctx, wake) }()
	defer func() {
		cancel()
		<-over
	}()
	c := access.Caller{Peer: w.Identity(identity.Peer{Cluster: world.Cluster, Role: identity.RoleOperator, Name: "bob"}).Peer()}
	held, stop := d.Hold(access.With(t.Context(), c))
	defer stop()
	w.Apply(t, command.RevokeCertificates{Role: "operator", Name: "bob"})
	wake <- struct{}{}
	<-held.Done()
	if err := request.RefusedSince(held, held.Err()); !fault.Is(err, fault.Denied) {
		t.Errorf("the waiting call ends with %v", err)
	}
	late, stop := d.Hold(access.With(t.Context(), c)) // it was admitted before
	defer stop()
	<-late.Done()
}
