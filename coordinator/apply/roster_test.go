package apply

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
)

// join lets a key join by a token of its own.
func (w *world) join(role, name string, key byte) command.Result {
	w.t.Helper()
	id := fmt.Sprintf("token %d", w.index)
	w.must(command.CreateJoinToken{ID: id, Role: role, Name: name, Hash: [32]byte{key}, TTL: time.Hour})
	return w.try(command.UseJoinToken{ID: id, Role: role, Hash: [32]byte{key}, Key: [32]byte{key}, TTL: time.Hour})
}

func (w *world) joined(role, name string, key byte) {
	w.t.Helper()
	if res := w.join(role, name, key); res.Err != nil {
		w.t.Fatalf("%s %s: %v", role, name, res.Err)
	}
}

func (w *world) admitted(role, name string, key byte) error {
	return state.Admit(w.s.View().Certificate([32]byte{key}), role, name)
}

func TestRevokedOperatorIsNeverBelievedAgain(t *testing.T) {
	w := newWorld(t)
	w.joined("operator", "bob", 1)
	w.joined("operator", "bob", 2) // another machine of the same person
	w.joined("operator", "carol", 3)
	w.must(command.RenewCertificate{Key: [32]byte{1}, TTL: 2 * time.Hour})
	w.refused(command.RevokeCertificates{Role: "operator", Name: "dave"}, fault.NotFound)
	w.refused(command.RevokeCertificates{Role: "operator", Name: "bob", Reason: strings.Repeat("x", state.MaxReason+1)}, fault.TooLarge)
	w.refused(command.RevokeCertificates{Role: "agent", Name: "bob"}, fault.Invalid)
	if res := w.must(command.RevokeCertificates{Role: "operator", Name: "bob", Reason: "a stolen laptop"}); res.Count != 2 {
		t.Errorf("%d certificates were revoked, want 2", res.Count)
	}
	for _, key := range []byte{1, 2} {
		err := w.admitted("operator", "bob", key)
		if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "revoked by operator alice on 2026-11-22") || !strings.Contains(err.Error(), "a stolen laptop") {
			t.Errorf("key %d: %v", key, err)
		}
		w.refused(command.RenewCertificate{Key: [32]byte{key}}, fault.Denied)
	}
	if err := w.admitted("operator", "carol", 3); err != nil {
		t.Error(err)
	}
	if res := w.join("operator", "bob", 1); !fault.Is(res.Err, fault.Denied) {
		t.Errorf("the stolen key joined with a token: %v", res.Err)
	}
	if res := w.join("operator", "carol", 9); res.Err != nil {
		t.Error(res.Err)
	}
	w.joined("operator", "bob", 4)
}

// TestTokenOfARevokedOperatorLetsNobodyIn: who has a stolen key would have made one for another name.
func TestTokenOfARevokedOperatorLetsNobodyIn(t *testing.T) {
	w := newWorld(t)
	w.joined("operator", "bob", 1)
	w.actor = "operator bob"
	w.must(command.CreateJoinToken{ID: "way back", Role: "operator", Name: "mallory", TTL: time.Hour})
	w.actor = "operator alice"
	w.must(command.CreateJoinToken{ID: "in time", Role: "operator", Name: "bob", TTL: time.Hour})
	w.must(command.RevokeCertificates{Role: "operator", Name: "bob"})
	w.refused(command.UseJoinToken{ID: "way back", Role: "operator", Key: [32]byte{5}}, fault.Expired)
	w.must(command.UseJoinToken{ID: "in time", Role: "operator", Key: [32]byte{6}})
}

func TestOneKeyHasOneHolder(t *testing.T) {
	w := newWorld(t)
	w.joined("operator", "bob", 1)
	if res := w.join("operator", "carol", 1); !fault.Is(res.Err, fault.Denied) {
		t.Errorf("bob's key joined as carol: %v", res.Err)
	}
	if err := w.admitted("operator", "carol", 1); !fault.Is(err, fault.Denied) {
		t.Errorf("bob's key passes for carol's: %v", err)
	}
}

// TestTwoTokensForOneNameAtTheSameInstant: whatever the order, one is believed.
func TestTwoTokensForOneNameAtTheSameInstant(t *testing.T) {
	w := newWorld(t)
	w.joined("coordinator", "c2", 1) // its record comes by a command of its own
	if res := w.join("coordinator", "c2", 2); !fault.Is(res.Err, fault.Exists) {
		t.Errorf("a second c2 joins beside the first: %v", res.Err)
	}
	w.joined("agent", "r1", 3)
	w.joined("agent", "r1", 4) // a machine that was set up anew
	if w.admitted("agent", "r1", 3) == nil || w.admitted("agent", "r1", 4) != nil {
		t.Errorf("believed: the first %v, the second %v", w.admitted("agent", "r1", 3), w.admitted("agent", "r1", 4))
	}
	w.agent("r1", 1)
	if res := w.join("agent", "r1", 5); !fault.Is(res.Err, fault.Exists) {
		t.Errorf("a second r1 joins while the first is live: %v", res.Err)
	}
	// A coordinator's join that was given up keeps the name for as long as it may be repeated, or until it is removed.
	w.must(command.RemoveMember{ID: "c2"})
	if err := w.admitted("coordinator", "c2", 1); !fault.Is(err, fault.Denied) {
		t.Errorf("the removed coordinator: %v", err)
	}
	w.joined("coordinator", "c2", 6)
	w.ticks(state.JoinAgain+time.Second, "")
	w.joined("coordinator", "c2", 7)
	if w.admitted("coordinator", "c2", 6) == nil {
		t.Error("two keys of c2 are believed")
	}
}

func TestRemovedAgentCannotOpenASession(t *testing.T) {
	w := newWorld(t)
	w.joined("agent", "r1", 1)
	open := command.OpenSession{Session: "s1", Agent: "r1", Group: "default", Drivers: []string{"fake-hardware"}, Journal: "j", Incarnation: 1, Level: state.Level, Key: [32]byte{1}}
	w.must(open)
	other := open
	other.Key = [32]byte{9}
	w.refused(other, fault.Denied)
	w.must(command.RemoveAgent{Agent: "r1"})
	w.refused(open, fault.Denied)
	w.joined("agent", "r2", 2) // it never had a session
	w.must(command.RemoveAgent{Agent: "r2"})
	w.refused(command.RemoveAgent{Agent: "r2"}, fault.NotFound)
}

func TestCoordinatorThatRejoinsKeepsItsCertificate(t *testing.T) {
	w := newWorld(t)
	w.joined("coordinator", "c2", 1)
	w.must(command.PutMember{Member: command.Member{ID: "c2", Level: state.Level}})
	w.must(command.RemoveMember{ID: "c2", Rejoins: true})
	if err := w.admitted("coordinator", "c2", 1); err != nil {
		t.Error(err)
	}
}

func TestEndedCertificatesAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.joined("operator", "bob", 1)
	w.joined("operator", "carol", 2)
	w.joined("coordinator", "c2", 3)
	w.joined("coordinator", "c3", 4)
	w.must(command.RemoveMember{ID: "c3"})
	w.must(command.RevokeCertificates{Role: "operator", Name: "bob"})
	w.ticks(30*time.Minute, "")
	w.must(command.RenewCertificate{Key: [32]byte{2}, TTL: time.Hour})
	w.ticks(31*time.Minute, "")
	if v := w.s.View(); v.Certificate([32]byte{1}) != nil || v.Certificate([32]byte{2}) == nil {
		t.Errorf("bob's ended: %+v; carol's was renewed: %+v", v.Certificate([32]byte{1}), v.Certificate([32]byte{2}))
	}
	w.ticks(time.Hour, "")
	if w.s.Certificates.Len() != 2 {
		t.Errorf("%d certificates are kept", w.s.Certificates.Len())
	}
}

// TestCoordinatorThatWasOffForAMonthIsNoStranger: it comes back with a certificate of its own making, and one that was removed
// meanwhile is refused by all.
func TestCoordinatorThatWasOffForAMonthIsNoStranger(t *testing.T) {
	w := newWorld(t)
	w.joined("coordinator", "c2", 1)
	w.joined("coordinator", "c3", 2)
	w.must(command.RemoveMember{ID: "c3"})
	w.ticks(2*time.Hour, "") // the life of their certificates, and more
	w.must(command.RenewCertificate{Key: [32]byte{1}, TTL: time.Hour})
	if err := w.admitted("coordinator", "c3", 2); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the removed one: %v", err)
	}
}

// TestIdleClusterDoesNotTickForCertificates: they are no deadline.
func TestIdleClusterDoesNotTickForCertificates(t *testing.T) {
	w := &world{t: t, s: New(), actor: "coordinator c1"}
	w.must(command.InitCluster{ClusterID: cluster, Settings: command.DefaultSettings(), Issued: []command.Issued{{Key: [32]byte{1}, Role: "coordinator", Name: "c1"}}})
	if v := w.s.View(); v.HasDeadlines() || state.Admit(v.Certificate([32]byte{1}), "coordinator", "c1") != nil {
		t.Error("the first coordinator's certificate is a deadline, or not believed")
	}
}

// TestRestoreKeepsWhoBelongs: an old archive brings back no revoked key, no used token and no coordinator that was removed,
// and locks out nobody who came since.
func TestRestoreKeepsWhoBelongs(t *testing.T) {
	w := newWorld(t)
	w.joined("operator", "bob", 1)
	w.joined("agent", "r2", 5)
	w.must(command.CreateJoinToken{ID: "old", Role: "operator", Name: "eve", TTL: time.Hour})
	w.must(command.PutMember{Member: command.Member{ID: "c1", Level: state.Level}})
	w.must(command.PutMember{Member: command.Member{ID: "c2", Level: state.Level}})
	w.agent("r2", 1)
	w.must(command.RemoveAgent{Agent: "r2"})
	var archive bytes.Buffer
	if err := w.s.View().WriteSnapshot(&archive); err != nil {
		t.Fatal(err)
	}
	w.ticks(10*time.Minute, "")
	w.must(command.UseJoinToken{ID: "old", Role: "operator", Key: [32]byte{2}, TTL: time.Hour})
	w.must(command.RevokeCertificates{Role: "operator", Name: "bob", Reason: "left"})
	w.must(command.RemoveMember{ID: "c2"})
	w.must(command.PutMember{Member: command.Member{ID: "c3", Level: state.Level}})
	w.joined("agent", "r2", 6)
	w.joined("operator", "carol", 3)
	left := w.s.View().Certificate([32]byte{3}).Ends - w.s.View().Elapsed()

	restored, err := state.ReadSnapshot(&archive)
	if err != nil {
		t.Fatal(err)
	}
	restored.KeepMembership(w.s.State)
	v := restored.View()
	if state.Admit(v.Certificate([32]byte{1}), "operator", "bob") == nil {
		t.Error("bob is believed again")
	}
	if err := state.Admit(v.Certificate([32]byte{3}), "operator", "carol"); err != nil {
		t.Error(err)
	}
	if got := v.Certificate([32]byte{3}).Ends - v.Elapsed(); got != left {
		t.Errorf("carol's certificate has %v left, had %v", got, left)
	}
	if _, there := v.JoinToken("old"); !there || restored.JoinTokens.Find("old").UsedBy == ([32]byte{}) {
		t.Error("a used token is good again")
	}
	if _, there := v.Member("c2"); there {
		t.Error("a coordinator that was removed is a member again")
	}
	if _, there := v.Member("c3"); !there {
		t.Error("a coordinator that joined since is no member")
	}
	if v.Removed("r2") {
		t.Error("an agent that joined again is a removed one")
	}
	if err := On(restored).invariants(); err != nil {
		t.Error(err)
	}
}

// TestClusterMadeAnewKeepsAgentsAndPeople: its coordinators are gone, and whoever it would have let join.
func TestClusterMadeAnewKeepsAgentsAndPeople(t *testing.T) {
	w := newWorld(t)
	w.joined("operator", "bob", 1)
	w.joined("operator", "carol", 2)
	w.joined("coordinator", "c1", 3)
	w.joined("agent", "r1", 4)
	w.must(command.RevokeCertificates{Role: "operator", Name: "carol"})
	w.must(command.CreateJoinToken{ID: "u", Role: "operator", Name: "eve", TTL: time.Hour})
	w.must(command.RecoverRoster{Issued: []command.Issued{{Key: [32]byte{7}, Role: "operator", Name: "admin"}, {Key: [32]byte{8}, Role: "coordinator", Name: "c1"}}})
	for key, holder := range map[byte]string{1: "operator bob", 2: "operator carol", 3: "coordinator c1", 4: "agent r1", 7: "operator admin", 8: "coordinator c1"} {
		role, name, _ := strings.Cut(holder, " ")
		if err, want := w.admitted(role, name, key), key != 2 && key != 3; (err == nil) != want {
			t.Errorf("key %d of %s: %v", key, holder, err)
		}
	}
	w.refused(command.UseJoinToken{ID: "u", Role: "operator", Key: [32]byte{9}}, fault.Expired)
	if c := w.s.View().Certificate([32]byte{1}); c.Ends != state.CertificateTTL+w.s.Root.Elapsed {
		t.Errorf("bob's certificate, renewed after the archive was made, would be forgotten at %v", c.Ends)
	}
}

func TestFullRosterForgetsWhatIsRefusedAnyway(t *testing.T) {
	w := newWorld(t)
	var all []command.Issued
	for i := range state.MaxCertificates {
		all = append(all, command.Issued{Key: [32]byte{1, byte(i), byte(i >> 8)}, Role: "operator", Name: "bot"})
	}
	w.must(command.RecoverRoster{Issued: all})
	if res := w.join("operator", "bob", 2); !fault.Is(res.Err, fault.Busy) {
		t.Fatalf("the full roster took one more: %v", res.Err)
	}
	w.must(command.RevokeCertificates{Role: "operator", Name: "bot"})
	w.joined("operator", "bob", 3)
	if n := w.s.Certificates.Len(); n != state.MaxCertificates {
		t.Errorf("%d certificates", n)
	}
}
