package gate_test

import (
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

func certificates(w *world.World, member, operator string) fc.CertificateServiceClient {
	return fc.NewCertificateServiceClient(w.As(identity.RoleOperator, operator), w.URL[member])
}

// revoke has alice take an operator's certificates back, over a follower.
func revoke(t *testing.T, w *world.World, name string) *farrierv1.RevokeOperatorResponse {
	t.Helper()
	res, err := certificates(w, "c2", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: name, Reason: "a stolen laptop"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestRevokedOperatorIsRefusedByEachMember: at once, and on the connections that are open.
func TestRevokedOperatorIsRefusedByEachMember(t *testing.T) {
	w := world.New(t, []string{"c1", "c2", "c3"}, "a1")
	world.MustCreate(t, w.Nodes("c1"), world.Web(1))
	bob := w.As(identity.RoleOperator, "bob")
	reused := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Reused {
			reused++
		}
	}})
	calls := map[string]func(member string) error{
		"read": func(m string) error {
			_, err := fc.NewNodeServiceClient(bob, w.URL[m]).GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1"})
			return err
		},
		"stale read": func(m string) error {
			_, err := fc.NewNodeServiceClient(bob, w.URL[m]).GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1", Stale: true})
			return err
		},
		"write": func(m string) error {
			_, err := fc.NewNodeServiceClient(bob, w.URL[m]).SetMaintenance(ctx, &farrierv1.SetMaintenanceRequest{Node: "web-1"})
			return err
		},
		"cluster": func(m string) error {
			_, err := fc.NewClusterServiceClient(bob, w.URL[m]).GetCluster(ctx, &farrierv1.GetClusterRequest{})
			return err
		},
		"renewal": func(m string) error {
			csr, _ := world.CSRs(t, w.IDs[identity.Peer{Cluster: world.Cluster, Role: identity.RoleOperator, Name: "bob"}])
			_, err := fc.NewJoinServiceClient(bob, w.URL[m]).Renew(ctx, &farrierv1.RenewRequest{CsrDer: csr})
			return err
		},
	}
	for _, m := range []string{"c1", "c2", "c3"} {
		for what, call := range calls {
			if err := call(m); err != nil {
				t.Errorf("%s at %s: %v", what, m, err)
			}
		}
	}
	if res := revoke(t, w, "bob"); res.GetRevoked() != 1 || res.GetOperatorsLeft() != 1 {
		t.Errorf("the answer is %v", res)
	}
	reused = 0
	for _, m := range []string{"c1", "c2", "c3"} {
		for what, call := range calls {
			d := world.WantKind(t, call(m), fault.Denied)
			if !strings.Contains(d.GetMessage(), "operator bob was revoked by operator alice on ") || !strings.Contains(d.GetMessage(), "a stolen laptop") ||
				!strings.Contains(d.GetHelp(), "farrier operator token bob") {
				t.Errorf("%s at %s: %s; %s", what, m, d.GetMessage(), d.GetHelp())
			}
		}
	}
	if reused == 0 {
		t.Error("no connection was open")
	}
}

// TestFollowerTurnedAJoinerAway: it had not heard yet that the certificate was issued.
func TestFollowerTurnedAJoinerAway(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	world.MustCreate(t, w.Nodes("c1"), world.Web(1))
	w.Lag("c2")
	bob := w.As(identity.RoleOperator, "bob")
	nodes := fc.NewNodeServiceClient(bob, w.URL["c2"])
	if _, err := nodes.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1", Stale: true}); err != nil {
		t.Errorf("a read: %v", err)
	}
	w.Lag("c2")
	if _, err := nodes.SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "web-1", On: true}); err != nil {
		t.Errorf("a write, which the leader judges: %v", err)
	}
	// And the other way round: it has not heard of the revocation. What the leader confirms is judged by the newest roster.
	w.Lag("c2")
	w.Apply(t, command.RevokeCertificates{Role: "operator", Name: "bob"})
	_, err := nodes.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	world.WantKind(t, err, fault.Denied)
	w.Lag("c2")
	w.Apply(t, command.RevokeCertificates{Role: "operator", Name: "alice"})
	_, err = w.Nodes("c2").SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "web-1"})
	world.WantKind(t, err, fault.Denied)
}

// TestACertificateThatTheClusterDoesNotKnow is good in form: its CA signed it.
func TestACertificateThatTheClusterDoesNotKnow(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	for _, p := range []identity.Peer{{Cluster: world.Cluster, Role: identity.RoleOperator, Name: "eve"}, {Cluster: world.Cluster, Role: identity.RoleCoordinator, Name: "c1"}} {
		rt := w.Transport(w.Issue(p))
		_, err := fc.NewNodeServiceClient(&http.Client{Transport: rt}, w.URL["c1"]).ListNodes(t.Context(), &farrierv1.ListNodesRequest{})
		world.WantKind(t, err, fault.Denied)
		_, err = fc.NewClusterServiceClient(&http.Client{Transport: rt}, w.URL["c2"]).RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c1"})
		world.WantKind(t, err, fault.Denied)
	}
}

// TestRemovedCoordinatorSpokeForOthers: its certificate was believed for as long as it lasted, and so was whom it named.
func TestRemovedCoordinatorSpokeForOthers(t *testing.T) {
	w := world.New(t, []string{"c1", "c2", "c3"}, "a1")
	if _, err := w.Nodes("c3").ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Fatal(err)
	}
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true})
	if _, err := w.Clusters("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c3"}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Nodes("c3").SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "x"})
	if d := world.WantKind(t, err, fault.Denied); !strings.Contains(d.GetMessage(), "coordinator c3 was revoked by operator alice") {
		t.Errorf("a request that it sent on: %s", d.GetMessage())
	}
	_, err = fc.NewClusterServiceClient(w.As(identity.RoleCoordinator, "c3"), w.URL["c2"]).GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	world.WantKind(t, err, fault.Denied)
}

// TestOperatorsBelievedARemovedCoordinator: nobody told them, until its certificate ended.
func TestOperatorsBelievedARemovedCoordinator(t *testing.T) {
	w := world.New(t, []string{"c1", "c2", "c3"}, "a1")
	alice := w.Identity(identity.Peer{Cluster: world.Cluster, Role: identity.RoleOperator, Name: "alice"})
	removed := w.IDs[identity.Peer{Cluster: world.Cluster, Role: identity.RoleCoordinator, Name: "c3"}]
	c, err := client.New(client.Config{Identity: alice, Addresses: []string{strings.TrimPrefix(w.URL["c2"], "https://")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list := func() {
		t.Helper()
		if _, err := c.Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if list(); alice.Revoked(removed.Pin()) {
		t.Fatal("it is not believed although it was not removed")
	}
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true})
	if _, err := w.Clusters("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c3"}); err != nil {
		t.Fatal(err)
	}
	list()
	if stays := w.IDs[identity.Peer{Cluster: world.Cluster, Role: identity.RoleCoordinator, Name: "c1"}]; !alice.Revoked(removed.Pin()) || alice.Revoked(stays.Pin()) {
		t.Error("alice is not told whom to believe")
	}
	direct, err := client.New(client.Config{Identity: alice, Addresses: []string{strings.TrimPrefix(w.URL["c3"], "https://")}, Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	if _, err := direct.Nodes.ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err == nil || !strings.Contains(err.Error(), "the certificate of coordinator c3 was revoked") {
		t.Errorf("at the address of c3 there is %v", err)
	}
}
