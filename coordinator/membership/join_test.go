package membership_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/test/world"
)

func token(t *testing.T, w *world.World, req *farrierv1.CreateJoinTokenRequest) string {
	t.Helper()
	res, err := w.Clusters("c1").CreateJoinToken(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return res.GetToken()
}

func joiner(t *testing.T, w *world.World, member string) (fc.JoinServiceClient, *identity.Store) {
	t.Helper()
	store, err := identity.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return fc.NewJoinServiceClient(w.As("", ""), w.URL[member]), store
}

// TestAgentJoinsOnceOverAFollower: a bad request does not use the token up, nor does a join whose answer was lost.
func TestAgentJoinsOnceOverAFollower(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	text := token(t, w, &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: "a1"})
	c, store := joiner(t, w, "c2")
	csr, ramdisk := world.CSRs(t, store)
	req := &farrierv1.JoinRequest{Token: text, CsrDer: csr, IntermediateCsrDer: ramdisk, FeatureLevel: 1}

	req.FeatureLevel = 2
	_, err := c.Join(t.Context(), req)
	world.WantKind(t, err, fault.Version) // and the token is not used up
	req.FeatureLevel, req.IntermediateCsrDer = 1, nil
	_, err = c.Join(t.Context(), req)
	world.WantKind(t, err, fault.Invalid)
	req.IntermediateCsrDer, req.CsrDer = ramdisk, csr[1:]
	_, err = c.Join(t.Context(), req)
	world.WantKind(t, err, fault.Invalid)
	req.CsrDer = csr
	res, err := c.Join(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetName() != "a1" || res.GetGroup() != "default" || len(res.GetRackAddresses()) != 2 || len(res.GetKeyring()) != 0 {
		t.Errorf("joined: %v", res)
	}
	if err := store.Put(res.GetChainDer(), res.GetCaDer()); err != nil {
		t.Fatal(err)
	}
	if p := store.Peer(); p.Role != identity.RoleAgent || p.Name != "a1" || p.Group != "default" {
		t.Errorf("certificate of %+v", p)
	}
	if err := store.PutRamdiskCA(res.GetIntermediateChainDer()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.RamdiskCA(); err != nil {
		t.Errorf("ramdisk CA: %v", err)
	}
	if again, err := c.Join(t.Context(), req); err != nil || again.GetName() != "a1" { // the answer may have been lost
		t.Errorf("a join that was cut: %v, %v", again, err)
	}
	other, err := identity.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	req.CsrDer, req.IntermediateCsrDer = world.CSRs(t, other)
	_, err = c.Join(t.Context(), req)
	world.WantKind(t, err, fault.Expired) // one use
}

func TestJoinTokensExpire(t *testing.T) {
	w := world.New(t, []string{"c1"})
	text := token(t, w, &farrierv1.CreateJoinTokenRequest{Role: "operator", Name: "bob", Ttl: durationpb.New(time.Second)})
	w.Apply(t, command.Tick{FirstOfTerm: true})
	for range 2 {
		w.Apply(t, command.Tick{D: time.Second})
	}
	c, store := joiner(t, w, "c1")
	csr, _ := world.CSRs(t, store)
	_, err := c.Join(t.Context(), &farrierv1.JoinRequest{Token: text, CsrDer: csr, FeatureLevel: 1})
	if d := world.WantKind(t, err, fault.Expired); d.GetHelp() == "" {
		t.Error("no advice")
	}
}

func TestBadTokens(t *testing.T) {
	w := world.New(t, []string{"c1"})
	for what, req := range map[string]*farrierv1.CreateJoinTokenRequest{
		"role": {Role: "ramdisk", Name: "x"}, "name": {Role: "agent", Name: ""}, "ttl": {Role: "agent", Name: "a", Ttl: durationpb.New(25 * time.Hour)},
		"group of an operator": {Role: "operator", Name: "a", Group: "g"}, "group": {Role: "agent", Name: "a", Group: "a b"},
	} {
		if _, err := w.Clusters("c1").CreateJoinToken(t.Context(), req); err == nil {
			t.Errorf("a bad %s passed", what)
		} else {
			world.WantKind(t, err, fault.Invalid)
		}
	}
	good, err := identity.ParseJoinToken(token(t, w, &farrierv1.CreateJoinTokenRequest{Role: "operator", Name: "bob"}))
	if err != nil {
		t.Fatal(err)
	}
	c, store := joiner(t, w, "c1")
	csr, _ := world.CSRs(t, store)
	forged := good
	forged.Secret = bytes.Repeat([]byte{1}, 16)
	_, err = c.Join(t.Context(), &farrierv1.JoinRequest{Token: forged.Encode(), CsrDer: csr, FeatureLevel: 1})
	world.WantKind(t, err, fault.Unauthenticated)
	_, err = c.Join(t.Context(), &farrierv1.JoinRequest{Token: "farrier-join-x", CsrDer: csr, FeatureLevel: 1})
	world.WantKind(t, err, fault.Invalid)
	grown := good
	grown.Role, grown.Name = identity.RoleCoordinator, "c9"
	res, err := c.Join(t.Context(), &farrierv1.JoinRequest{Token: grown.Encode(), CsrDer: csr, FeatureLevel: 1})
	if err != nil || res.GetName() != "bob" || len(res.GetKeyring()) != 0 {
		t.Errorf("a token with another role written in: %v, %v", res.GetName(), err)
	}
}

func TestTokenOfARepeatIsTheSame(t *testing.T) {
	w := world.New(t, []string{"c1"})
	c := fc.NewClusterServiceClient(w.As(identity.RoleOperator, "alice"), w.URL["c1"], world.RequestID("0123456789abcdef", 9))
	var texts []string
	for range 2 {
		res, err := c.CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "operator", Name: "bob"})
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, res.GetToken())
	}
	if texts[0] != texts[1] {
		t.Error("the repeat answered another token, which nobody stored")
	}
}

func TestCoordinatorJoinsAndBecomesVoter(t *testing.T) {
	w := world.New(t, []string{"c1"})
	w.SetVoters(membership.Server{ID: "c1", Voter: true})
	text := token(t, w, &farrierv1.CreateJoinTokenRequest{Role: "coordinator", Name: "c2"})
	c, store := joiner(t, w, "c1")
	csr, _ := world.CSRs(t, store)
	req := &farrierv1.JoinRequest{Token: text, CsrDer: csr, RaftAddress: "10.0.0.2:7601", ApiAddress: "10.0.0.2:7600", RackAddress: "0.0.0.0:7602", FeatureLevel: 1}
	_, err := c.Join(t.Context(), req)
	world.WantKind(t, err, fault.Invalid)
	req.RackAddress, req.FeatureLevel = "10.0.0.2:7602", 0
	_, err = c.Join(t.Context(), req)
	world.WantKind(t, err, fault.Version)
	req.FeatureLevel = 1
	res, err := c.Join(t.Context(), req)
	if err != nil || !bytes.Equal(res.GetKeyring(), w.Keys.Marshal()) {
		t.Fatalf("join: %v", err)
	}
	var reached []string
	ctx, cancel := context.WithCancel(t.Context())
	err = w.APIs["c1"].KeepVoters(ctx, func(_ context.Context, _, address string) error {
		if reached = append(reached, address); len(reached) == 1 {
			return fault.New(fault.Unavailable, "", "not yet")
		}
		if len(w.Voters()) != 1 {
			t.Error("a member that was not reached became a voter")
		}
		cancel() // what was begun is done
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if len(w.Voters()) != 2 || w.Voters()[1].ID != "c2" || w.Voters()[1].RaftAddress != "10.0.0.2:7601" || len(reached) != 2 {
		t.Errorf("voters %v after reaching %v", w.Voters(), reached)
	}
}

// TestEmptyMemberVotedUnderALiveName: a coordinator with a new disk joined under the name under which it still voted, and
// with its empty log helped to elect a leader without committed entries.
func TestEmptyMemberVotedUnderALiveName(t *testing.T) {
	w := world.New(t, []string{"c1"})
	join := func(text string) error {
		c, store := joiner(t, w, "c1")
		csr, _ := world.CSRs(t, store)
		_, err := c.Join(t.Context(), &farrierv1.JoinRequest{Token: text, CsrDer: csr, RaftAddress: "10.0.0.9:7601",
			ApiAddress: "10.0.0.9:7600", RackAddress: "10.0.0.9:7602", FeatureLevel: 1})
		return err
	}
	req := &farrierv1.CreateJoinTokenRequest{Role: "coordinator", Name: "c2"}
	early, second := token(t, w, req), token(t, w, req)
	before := command.Member{ID: "c2", RaftAddress: "10.0.0.2:7601", APIAddress: "10.0.0.2:7600", RackAddress: "10.0.0.2:7602", Level: 1}
	refused := func(what string) {
		for _, text := range []string{early, second} {
			if d := world.WantKind(t, join(text), fault.Exists); !strings.Contains(d.GetHelp(), "farrier coordinator remove c2") {
				t.Errorf("%s: advice %q", what, d.GetHelp())
			}
		}
		_, err := w.Clusters("c1").CreateJoinToken(t.Context(), req)
		world.WantKind(t, err, fault.Exists)
	}
	w.Apply(t, command.PutMember{Member: before})
	refused("a record")
	if got, _ := w.Newest().Member("c2"); *got != before {
		t.Errorf("its addresses are %+v now", *got)
	}
	w.Apply(t, command.RemoveMember{ID: "c2"})
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true})
	refused("a voter whose record is gone")
	w.SetVoters(w.Voters()[:1]...)
	if err := join(early); err != nil {
		t.Errorf("after its removal: %v", err)
	}
	world.WantKind(t, join(second), fault.Exists) // another key: not a join that was cut
}

func TestRenew(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	store := w.Identity(identity.Peer{Cluster: world.Cluster, Role: identity.RoleAgent, Name: "a1", Group: "default"})
	csr, ramdisk := world.CSRs(t, store)
	c := fc.NewJoinServiceClient(&http.Client{Transport: w.Transport(store)}, w.URL["c2"])
	res, err := c.Renew(t.Context(), &farrierv1.RenewRequest{CsrDer: csr, IntermediateCsrDer: ramdisk})
	if err != nil || len(res.GetRackAddresses()) != 2 {
		t.Fatalf("renew: %v, %v", res, err)
	}
	if err := store.Put(res.GetChainDer(), res.GetCaDer()); err != nil {
		t.Fatal(err)
	}
	if p := store.Peer(); p.Role != identity.RoleAgent || p.Name != "a1" || p.Group != "default" {
		t.Errorf("renewed for %+v", p)
	}
	if err := store.PutRamdiskCA(res.GetIntermediateChainDer()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.RamdiskCA(); err != nil {
		t.Error(err)
	}
	bob := w.Identity(identity.Peer{Cluster: world.Cluster, Role: identity.RoleOperator, Name: "bob"})
	csr, ramdisk = world.CSRs(t, bob)
	_, err = fc.NewJoinServiceClient(&http.Client{Transport: w.Transport(bob)}, w.URL["c1"]).Renew(t.Context(), &farrierv1.RenewRequest{CsrDer: csr, IntermediateCsrDer: ramdisk})
	world.WantKind(t, err, fault.Denied)
}

func TestMembers(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true, LastContact: 12 * time.Second, Silent: 12 * time.Second})
	res, err := w.Clusters("c2").GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	if err != nil || res.GetLeader() != "c1" || len(res.GetMembers()) != 2 || !res.GetMembers()[0].GetLeader() || res.GetFeatureLevel() != 1 || res.GetGeneration() != 1 {
		t.Errorf("cluster: %v, %v", res, err)
	}
	if alarms := strings.Join(res.GetAlarms(), "\n"); res.GetMembers()[1].GetLastContactMs() != 12_000 || !strings.Contains(alarms, "c2 has not answered the leader for 12s") || strings.Contains(alarms, "c1 has") {
		t.Errorf("c2 is silent: %v", res)
	}
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true, LastContact: time.Millisecond, Match: 5, Behind: 70, Lag: 11 * time.Second},
		membership.Server{ID: "c3", LastContact: time.Millisecond, Behind: 75, Lag: time.Minute})
	res, err = w.Clusters("c2").GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
	if err != nil || res.GetMembers()[1].GetMatchIndex() != 5 || res.GetMembers()[1].GetBehind() != 70 || res.GetMembers()[1].GetLagMs() != 11_000 {
		t.Errorf("cluster: %v, %v", res, err)
	}
	if alarms := strings.Join(res.GetAlarms(), "\n"); !strings.Contains(alarms, "c2 answers, and has lacked committed log entries for 11s, now 70") ||
		!strings.Contains(alarms, "c3 has joined and has no vote before it has caught up: it is 75") || strings.Contains(alarms, "c3 answers") {
		t.Errorf("c2 is behind, c3 catches up: %v", alarms)
	}
	w.SetVoters(membership.Server{ID: "c1", Voter: true}, membership.Server{ID: "c2", Voter: true})
	as := func(name string) fc.ClusterServiceClient {
		return fc.NewClusterServiceClient(w.As(identity.RoleCoordinator, name), w.URL["c1"])
	}
	_, err = as("c2").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c1"})
	world.WantKind(t, err, fault.Denied)
	_, err = as("c2").PutMember(t.Context(), &farrierv1.PutMemberRequest{FeatureLevel: 1, Member: &farrierv1.Member{Id: "c1"}})
	world.WantKind(t, err, fault.Denied)
	_, err = w.Clusters("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c7"})
	world.WantKind(t, err, fault.NotFound)
	if _, err := as("c2").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c2"}); err != nil {
		t.Errorf("a coordinator leaves: %v", err)
	}
	w.SetVoters(w.Voters()[:1]...)
	_, err = w.Clusters("c1").RemoveMember(t.Context(), &farrierv1.RemoveMemberRequest{Id: "c1"})
	world.WantKind(t, err, fault.Denied)
}

func TestSettings(t *testing.T) {
	w := world.New(t, []string{"c1"})
	c := w.Clusters("c1")
	set := func(s *farrierv1.Settings, paths ...string) (*farrierv1.Settings, error) {
		res, err := c.UpdateSettings(t.Context(), &farrierv1.UpdateSettingsRequest{Settings: s, Mask: &fieldmaskpb.FieldMask{Paths: paths}})
		return res.GetSettings(), err
	}
	got, err := set(&farrierv1.Settings{StepTries: 7, Erase: "metadata"}, "step_tries", "erase", "automated_clean")
	if err != nil || got.GetStepTries() != 7 || got.GetErase() != "metadata" || got.GetAutomatedClean() || got.GetBootTries() != 3 {
		t.Errorf("settings %v, %v", got, err)
	}
	for what, s := range map[string]*farrierv1.Settings{"step_tries": {}, "erase": {Erase: "burn"}, "session_ttl": {SessionTtl: durationpb.New(time.Millisecond)},
		"deploy_callback_timeout": {DeployCallbackTimeout: durationpb.New(48 * time.Hour)}, "colour": {}} {
		if _, err := set(s, what); err == nil {
			t.Errorf("a bad %s passed", what)
		} else {
			world.WantKind(t, err, fault.Invalid)
		}
	}
	_, err = set(&farrierv1.Settings{})
	world.WantKind(t, err, fault.Invalid)
}

func TestSnapshotsAreSentInBoundedChunks(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	stream, err := w.Clusters("c2").SaveSnapshot(t.Context(), &farrierv1.SaveSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	total := 0
	for stream.Receive() {
		if n := len(stream.Msg().GetChunk()); n > (1 << 20) {
			t.Errorf("a chunk of %d bytes", n)
		}
		total += len(stream.Msg().GetChunk())
	}
	if stream.Err() != nil || total != 3<<19 {
		t.Errorf("%d bytes, %v", total, stream.Err())
	}
	up, err := w.Clusters("c1").RestoreSnapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := up.Send(&farrierv1.RestoreSnapshotRequest{Chunk: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := up.CloseAndReceive(); err != nil || res.GetGeneration() != 1 {
		t.Errorf("restore: %v, %v", res, err)
	}
}

// TestTheRemovedDoNotRenew: who was removed has what is left of its certificate's life, and no more.
func TestTheRemovedDoNotRenew(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"}, "a1")
	renew := func(role identity.Role, name string) error {
		c := w.As(role, name)
		p := identity.Peer{Cluster: world.Cluster, Role: role, Name: name}
		if role == identity.RoleAgent {
			p.Group = "default"
		}
		csr, _ := world.CSRs(t, w.IDs[p])
		_, err := fc.NewJoinServiceClient(c, w.URL["c1"]).Renew(t.Context(), &farrierv1.RenewRequest{CsrDer: csr})
		return err
	}
	for role, name := range map[identity.Role]string{identity.RoleAgent: "a1", identity.RoleCoordinator: "c2", identity.RoleOperator: "alice"} {
		if err := renew(role, name); err != nil {
			t.Errorf("%s %s, who is there: %v", role, name, err)
		}
	}
	w.Apply(t, command.RemoveAgent{Agent: "a1"})
	w.Apply(t, command.RemoveMember{ID: "c2"})
	for role, name := range map[identity.Role]string{identity.RoleAgent: "a1", identity.RoleCoordinator: "c2"} {
		world.WantKind(t, renew(role, name), fault.Denied)
	}
	world.WantKind(t, renew(identity.RoleCoordinator, "never-a-member"), fault.Denied)
}

// TestAMemberThatIsCutOffSavesNoSnapshot: its state may be of before, and a backup must not be.
func TestAMemberThatIsCutOffSavesNoSnapshot(t *testing.T) {
	w := world.New(t, []string{"c1", "c2"})
	w.Lead("") // after the gate has found c1 to be the leader
	if err := membership.New(membership.Config{ID: "c1", Desk: w.Desk("c1"), Cluster: w.Replica("c1")}).SaveSnapshot(t.Context(), &farrierv1.SaveSnapshotRequest{}, nil); !fault.Is(err, fault.NoQuorum) {
		t.Errorf("saved: %v", err)
	}
}

// TestBackupOfADeposedLeader: a member that no leader confirmed saved its old state as the cluster's.
func TestBackupOfADeposedLeader(t *testing.T) {
	w := world.New(t, []string{"c1"})
	w.Lead("")
	stream, err := w.Clusters("c1").SaveSnapshot(t.Context(), &farrierv1.SaveSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if stream.Receive() {
		t.Errorf("%d bytes were saved", len(stream.Msg().GetChunk()))
	}
	world.WantKind(t, stream.Err(), fault.NoQuorum)
}
