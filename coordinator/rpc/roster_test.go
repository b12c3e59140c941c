package rpc

import (
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

func (w *world) certificates(member, operator string) fc.CertificateServiceClient {
	return fc.NewCertificateServiceClient(w.as(identity.RoleOperator, operator), w.url[member])
}

// revoke has alice take an operator's certificates back, over a follower.
func (w *world) revoke(t *testing.T, name string) *farrierv1.RevokeOperatorResponse {
	t.Helper()
	res, err := w.certificates("c2", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: name, Reason: "a stolen laptop"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestRevokedOperatorIsRefusedByEachMember: at once, and on the connections that are open.
func TestRevokedOperatorIsRefusedByEachMember(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2", "c3"}, "a1")
	mustCreate(t, w.nodes("c1"), web(1))
	bob := w.as(identity.RoleOperator, "bob")
	reused := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Reused {
			reused++
		}
	}})
	calls := map[string]func(member string) error{
		"read": func(m string) error {
			_, err := fc.NewNodeServiceClient(bob, w.url[m]).GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1"})
			return err
		},
		"stale read": func(m string) error {
			_, err := fc.NewNodeServiceClient(bob, w.url[m]).GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1", Stale: true})
			return err
		},
		"write": func(m string) error {
			_, err := fc.NewNodeServiceClient(bob, w.url[m]).SetMaintenance(ctx, &farrierv1.SetMaintenanceRequest{Node: "web-1"})
			return err
		},
		"cluster": func(m string) error {
			_, err := fc.NewClusterServiceClient(bob, w.url[m]).GetCluster(ctx, &farrierv1.GetClusterRequest{})
			return err
		},
		"renewal": func(m string) error {
			csr, _ := csrs(t, w.ids[identity.Peer{Cluster: testCluster, Role: identity.RoleOperator, Name: "bob"}])
			_, err := fc.NewJoinServiceClient(bob, w.url[m]).Renew(ctx, &farrierv1.RenewRequest{CsrDer: csr})
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
	if res := w.revoke(t, "bob"); res.GetRevoked() != 1 || res.GetOperatorsLeft() != 1 {
		t.Errorf("the answer is %v", res)
	}
	reused = 0
	for _, m := range []string{"c1", "c2", "c3"} {
		for what, call := range calls {
			d := wantKind(t, call(m), fault.Denied)
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

// TestRevokedOperatorGoesOnWatching: an open stream ends with the certificate, and so does a call that waits for a lock.
func TestRevokedOperatorGoesOnWatching(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"})
	s, err := fc.NewWatchServiceClient(w.as(identity.RoleOperator, "bob"), w.url["c2"]).Watch(t.Context(), &farrierv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Receive() {
		t.Fatal(s.Err())
	}
	c := access.Caller{Peer: w.ids[identity.Peer{Cluster: testCluster, Role: identity.RoleOperator, Name: "bob"}].Peer()}
	held, stop := w.apis["c1"].desk.Hold(access.With(t.Context(), c))
	defer stop()
	w.revoke(t, "bob")
	for s.Receive() { // the event of it, at most
	}
	wantKind(t, s.Err(), fault.Denied)
	<-held.Done()
	if err := request.RefusedSince(held, held.Err()); !fault.Is(err, fault.Denied) {
		t.Errorf("the waiting call ends with %v", err)
	}
	late, stop := w.apis["c1"].desk.Hold(access.With(t.Context(), c)) // it was admitted before
	defer stop()
	<-late.Done()
}

// TestFollowerTurnedAJoinerAway: it had not heard yet that the certificate was issued.
func TestFollowerTurnedAJoinerAway(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	mustCreate(t, w.nodes("c1"), web(1))
	behind := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stale["c2"] = w.view
	}
	behind()
	bob := w.as(identity.RoleOperator, "bob")
	nodes := fc.NewNodeServiceClient(bob, w.url["c2"])
	if _, err := nodes.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1", Stale: true}); err != nil {
		t.Errorf("a read: %v", err)
	}
	behind()
	if _, err := nodes.SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "web-1", On: true}); err != nil {
		t.Errorf("a write, which the leader judges: %v", err)
	}
	// And the other way round: it has not heard of the revocation. What the leader confirms is judged by the newest roster.
	behind()
	w.apply(t, command.RevokeCertificates{Role: "operator", Name: "bob"})
	_, err := nodes.GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
	wantKind(t, err, fault.Denied)
	behind()
	w.apply(t, command.RevokeCertificates{Role: "operator", Name: "alice"})
	_, err = w.nodes("c2").SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "web-1"})
	wantKind(t, err, fault.Denied)
}

// TestACertificateThatTheClusterDoesNotKnow is good in form: its CA signed it.
func TestACertificateThatTheClusterDoesNotKnow(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"})
	for _, p := range []identity.Peer{{Cluster: testCluster, Role: identity.RoleOperator, Name: "eve"}, {Cluster: testCluster, Role: identity.RoleCoordinator, Name: "c1"}} {
		rt := w.transport(w.issue(p))
		_, err := fc.NewNodeServiceClient(&http.Client{Transport: rt}, w.url["c1"]).ListNodes(t.Context(), &farrierv1.ListNodesRequest{})
		wantKind(t, err, fault.Denied)
		_, err = fc.NewClusterServiceClient(&http.Client{Transport: rt}, w.url["c2"]).RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c1"})
		wantKind(t, err, fault.Denied)
	}
}

// TestRemovedCoordinatorSpokeForOthers: its certificate was believed for as long as it lasted, and so was whom it named.
func TestRemovedCoordinatorSpokeForOthers(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2", "c3"}, "a1")
	if _, err := w.nodes("c3").ListNodes(t.Context(), &farrierv1.ListNodesRequest{}); err != nil {
		t.Fatal(err)
	}
	w.voters = []membership.Server{{ID: "c1", Voter: true}, {ID: "c2", Voter: true}}
	if _, err := w.clusterClient("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c3"}); err != nil {
		t.Fatal(err)
	}
	_, err := w.nodes("c3").SetMaintenance(t.Context(), &farrierv1.SetMaintenanceRequest{Node: "x"})
	if d := wantKind(t, err, fault.Denied); !strings.Contains(d.GetMessage(), "coordinator c3 was revoked by operator alice") {
		t.Errorf("a request that it sent on: %s", d.GetMessage())
	}
	_, err = fc.NewClusterServiceClient(w.as(identity.RoleCoordinator, "c3"), w.url["c2"]).GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	wantKind(t, err, fault.Denied)
}

// TestLeaderThatIsRemovedHandsOn: without its certificate it could not bring the change to the others.
func TestLeaderThatIsRemovedHandsOn(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"})
	w.voters = []membership.Server{{ID: "c1", Voter: true}, {ID: "c2", Voter: true}}
	w.heir = "c2"
	if _, err := w.clusterClient("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c1"}); err != nil {
		t.Fatal(err)
	}
	evs, _, _ := w.view.Events(state.Position{}, 1000)
	if last := evs[len(evs)-1]; last.Fields["member"] != "c1" || last.Fields["state"] != "removed" {
		t.Errorf("the last event is %v", last)
	}
}

func TestListOfCertificates(t *testing.T) {
	w := newWorld(t, []string{"c1", "c2"}, "a1")
	w.as(identity.RoleOperator, "bob")
	w.as(identity.RoleAgent, "a1")
	w.revoke(t, "bob")
	res, err := w.certificates("c2", "alice").ListCertificates(t.Context(), &farrierv1.ListCertificatesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range res.GetCertificates() {
		names = append(names, c.GetName())
		if revoked := c.GetRevokedBy() != ""; revoked != (c.GetName() == "bob") || c.GetLeft().AsDuration() < 29*24*time.Hour || len(c.GetKey()) != 64 {
			t.Errorf("listed: %v", c)
		}
	}
	if got := strings.Join(names, " "); got != "a1 c1 c2 alice bob" {
		t.Errorf("listed: %s", got)
	}
	res, err = w.certificates("c1", "alice").ListCertificates(t.Context(), &farrierv1.ListCertificatesRequest{Role: "operator"})
	if err != nil || len(res.GetCertificates()) != 2 {
		t.Errorf("operators: %v, %v", res, err)
	}
	_, err = w.certificates("c1", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: "bob"})
	wantKind(t, err, fault.NotFound)
	if res, err := w.certificates("c1", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: "alice"}); err != nil || res.GetOperatorsLeft() != 0 {
		t.Errorf("the last operator takes its own back: %v, %v", res, err)
	}
	// The way back is on a coordinator's host.
	if _, err := fc.NewClusterServiceClient(w.as(identity.RoleCoordinator, "c1"), w.url["c1"]).CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "operator", Name: "carol"}); err != nil {
		t.Error(err)
	}
}

// TestStrangersKeyWasRenewed: a certificate is renewed for its own key, or a stolen one would live on in another.
func TestStrangersKeyWasRenewed(t *testing.T) {
	w := newWorld(t, []string{"c1"})
	_, store := joiner(t, w, "c1")
	csr, _ := csrs(t, store)
	_, err := fc.NewJoinServiceClient(w.as(identity.RoleOperator, "bob"), w.url["c1"]).Renew(t.Context(), &farrierv1.RenewRequest{CsrDer: csr})
	wantKind(t, err, fault.Invalid)
}

// TestAgentThatNeverCameCouldNotBeRemoved: it had joined, and had a certificate.
func TestAgentThatNeverCameCouldNotBeRemoved(t *testing.T) {
	w := newWorld(t, []string{"c1"})
	w.as(identity.RoleAgent, "a9")
	c := fc.NewAgentServiceClient(w.as(identity.RoleOperator, "alice"), w.url["c1"])
	if _, err := c.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a9"}); err != nil {
		t.Error(err)
	}
	_, err := c.RemoveAgent(t.Context(), &farrierv1.RemoveAgentRequest{Agent: "a9"})
	wantKind(t, err, fault.NotFound)
}
