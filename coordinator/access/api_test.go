package access_test

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

// TestEveryMethodRefusesOthers calls each method with each role over a real connection: who has no row entry is
// refused before anything else is looked at.
func TestEveryMethodRefusesOthers(t *testing.T) {
	w := world.New(t, []string{"c1"})
	methods, err := access.Methods()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []identity.Role{"", identity.RoleOperator, identity.RoleAgent, identity.RoleCoordinator} {
		client := w.As(role, "x")
		for name, row := range methods {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL["c1"]+name, strings.NewReader("{"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json") // of no stream: they answer 415 when allowed
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			refused := res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden
			allowed := row.Roles == nil
			for _, r := range row.Roles {
				allowed = allowed || r == role
			}
			if refused == allowed {
				t.Errorf("role %q on %s: status %d, allowed %v", role, name, res.StatusCode, allowed)
			}
		}
	}
}

func TestOnlyCoordinatorsSpeakForOthers(t *testing.T) {
	w := world.New(t, []string{"c1"}, "a1")
	key := w.Identity(identity.Peer{Cluster: world.Cluster, Role: identity.RoleOperator, Name: "bob"}).Pin()
	create := func(c *http.Client, actor, name string) (*farrierv1.Node, error) {
		client := fc.NewNodeServiceClient(c, w.URL["c1"], connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				req.Header().Set(access.HeaderActor, actor)
				req.Header().Set(access.HeaderActorKey, hex.EncodeToString(key[:]))
				return next(ctx, req)
			}
		})))
		res, err := client.CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: &farrierv1.Node{Name: name, Driver: "fake-hardware"}})
		return res.GetNode(), err
	}
	if _, err := create(w.As(identity.RoleCoordinator, "c2"), "operator bob", "n1"); err != nil {
		t.Fatal(err)
	}
	evs, _, _ := w.Newest().Events(state.Position{}, 1000)
	if last := evs[len(evs)-1]; last.Actor != "operator bob" {
		t.Errorf("actor %q, want the one that the coordinator named", last.Actor)
	}
	if _, err := create(w.As(identity.RoleAgent, "a1"), "operator bob", "n2"); err == nil {
		t.Error("an agent spoke for an operator")
	} else {
		world.WantKind(t, err, fault.Denied)
	}
	if _, err := create(w.As(identity.RoleCoordinator, "c2"), "agent a1", "n3"); err == nil {
		t.Error("a coordinator lent an agent the right to create")
	} else {
		world.WantKind(t, err, fault.Denied)
	}
	if _, err := create(w.As(identity.RoleCoordinator, "c2"), "nonsense", "n4"); err == nil {
		t.Error("a malformed actor passed")
	} else {
		world.WantKind(t, err, fault.Invalid)
	}
}
