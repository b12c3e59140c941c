package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/pkg/client"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// operator joins by a token over the first coordinator.
func (s *site) operator(name string) *identity.Store {
	s.t.Helper()
	res, err := s.cluster("c1").CreateJoinToken(s.t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "operator", Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := identity.ParseJoinToken(res.GetToken())
	if err != nil {
		s.t.Fatal(err)
	}
	store, err := identity.NewStore(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	csr, err := store.CSR()
	if err != nil {
		s.t.Fatal(err)
	}
	rt := identity.Transport(identity.JoinTLS(token.CAHash))
	defer rt.CloseIdleConnections()
	joined, err := fc.NewJoinServiceClient(httpClient(rt), s.url("c1")).Join(s.t.Context(), &farrierv1.JoinRequest{Token: res.GetToken(), CsrDer: csr, FeatureLevel: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := store.Put(joined.GetChainDer(), joined.GetCaDer()); err != nil {
		s.t.Fatal(err)
	}
	return store
}

// TestStolenCertificateWasGoodForThirtyDays: an operator's, and a removed coordinator's, on a real cluster; a restore of an
// archive from before brings neither back.
func TestStolenCertificateWasGoodForThirtyDays(t *testing.T) {
	s := newSite(t)
	members := []string{"c1", "c2", "c3"}
	s.join("c2")
	s.join("c3")
	s.waitVoters(3)
	rt := outward(s.operator("bob"))
	t.Cleanup(rt.CloseIdleConnections)
	list := func(member string) error {
		_, err := fc.NewNodeServiceClient(httpClient(rt), s.url(member)).ListNodes(t.Context(), &farrierv1.ListNodesRequest{})
		return err
	}
	for _, m := range members { // at once: not all of them may have heard of bob
		if err := list(m); err != nil {
			t.Errorf("bob at %s: %v", m, err)
		}
	}
	admin, err := client.New(client.Config{Identity: s.admin, Addresses: []string{s.members["c2"].api, s.members["c3"].api}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	var archive bytes.Buffer
	if _, err := admin.SaveSnapshot(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Certificates.RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: "bob", Reason: "a stolen laptop"}); err != nil {
		t.Fatal(err)
	}
	refused := func(when string, from ...string) {
		t.Helper()
		for _, m := range from {
			if err := list(m); err == nil || kindOf(t, err) != fault.Denied || !strings.Contains(err.Error(), "a stolen laptop") {
				t.Errorf("%s, bob at %s: %v", when, m, err)
			}
		}
	}
	refused("once it is taken back", members...)

	lead := s.leader("c2")
	left := others(lead)
	admin2, err := client.New(client.Config{Identity: s.admin, Addresses: []string{s.members[left[0]].api, s.members[left[1]].api}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin2.Close)
	if _, err := admin2.Cluster.RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: lead}); err != nil {
		t.Fatalf("the leader %s is removed: %v", lead, err)
	}
	if _, err := admin2.RestoreSnapshot(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	refused("after the restore", left...)
	res, err := admin2.Cluster.GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	if err != nil || len(res.GetMembers()) != 2 {
		t.Errorf("members after the restore: %v, %v", res, err)
	}
	gone, err := identity.OpenStore(filepath.Join(s.dir, lead, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	out := outward(gone)
	t.Cleanup(out.CloseIdleConnections)
	_, err = fc.NewClusterServiceClient(httpClient(out), s.url(left[0])).GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	if err == nil || kindOf(t, err) != fault.Denied {
		t.Errorf("the removed coordinator at the API: %v", err)
	}
	for _, m := range left {
		cfg := identity.ClientTLS(gone, identity.RoleCoordinator)
		cfg.NextProtos = []string{"farrier-raft/1"}
		until(t, "the removed coordinator on the Raft port of "+m, func() error { // a follower may not have applied it yet
			conn, err := tls.Dial("tcp", s.members[m].raft, cfg)
			if err != nil {
				return nil
			}
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				return err
			}
			if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("it is let in")
			}
			return nil
		})
	}
}
