package membership_test

import (
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

// certificates are an operator's calls to a member.
func certificates(w *world.World, member, operator string) fc.CertificateServiceClient {
	return fc.NewCertificateServiceClient(w.As(identity.RoleOperator, operator), w.URL[member])
}

// TestLeaderThatIsRemovedHandsOn: without its certificate it could not bring the change to the others.
func TestLeaderThatIsRemovedHandsOn(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true})
	w.Heir = "c2"
	if _, err := w.Clusters("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c1"}); err != nil {
		t.Fatal(err)
	}
	evs, _, _ := w.Newest().Events(state.Position{}, 1000)
	if last := evs[len(evs)-1]; last.Fields["member"] != "c1" || last.Fields["state"] != "removed" {
		t.Errorf("the last event is %v", last)
	}
}

func TestListOfCertificates(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	w.As(identity.RoleOperator, "bob")
	w.As(identity.RoleAgent, "a1")
	if _, err := certificates(w, "c2", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: "bob", Reason: "a stolen laptop"}); err != nil {
		t.Fatal(err)
	}
	res, err := certificates(w, "c2", "alice").ListCertificates(t.Context(), &farrierv1.ListCertificatesRequest{})
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
	res, err = certificates(w, "c1", "alice").ListCertificates(t.Context(), &farrierv1.ListCertificatesRequest{Role: "operator"})
	if err != nil || len(res.GetCertificates()) != 2 {
		t.Errorf("operators: %v, %v", res, err)
	}
	_, err = certificates(w, "c1", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: "bob"})
	world.WantKind(t, err, fault.NotFound)
	if res, err := certificates(w, "c1", "alice").RevokeOperator(t.Context(), &farrierv1.RevokeOperatorRequest{Name: "alice"}); err != nil || res.GetOperatorsLeft() != 0 {
		t.Errorf("the last operator takes its own back: %v, %v", res, err)
	}
	// The way back is on a coordinator's host.
	if _, err := fc.NewClusterServiceClient(w.As(identity.RoleCoordinator, "c1"), w.URL["c1"]).CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "operator", Name: "carol"}); err != nil {
		t.Error(err)
	}
}

// TestStrangersKeyWasRenewed: a certificate is renewed for its own key, or a stolen one would live on in another.
func TestStrangersKeyWasRenewed(t *testing.T) {
	w := world.New(t, []string{"c1"})
	_, store := joiner(t, w, "c1")
	csr, _ := world.CSRs(t, store)
	_, err := fc.NewJoinServiceClient(w.As(identity.RoleOperator, "bob"), w.URL["c1"]).Renew(t.Context(), &farrierv1.RenewRequest{CsrDer: csr})
	world.WantKind(t, err, fault.Invalid)
}
