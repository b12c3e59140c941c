package identity

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/farrier-project/farrier/pkg/fault"
)

// TestRemovedCoordinatorPassedForOne: an agent and an operator believed it for as long as its certificate lasted.
func TestRemovedCoordinatorPassedForOne(t *testing.T) {
	ca, err := NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	removed := newStore(t, ca, Peer{Cluster: "c", Role: RoleCoordinator, Name: "c3"})
	stays := newStore(t, ca, Peer{Cluster: "c", Role: RoleCoordinator, Name: "c1"})
	agent := newStore(t, ca, Peer{Cluster: "c", Role: RoleAgent, Name: "a", Group: "g"})
	calls := func(from, to *Store) error {
		_, err, _ := handshake(ClientTLS(from, RoleCoordinator), ServerTLS(to, tls.RequireAndVerifyClientCert))
		return err
	}
	if err := calls(agent, removed); err != nil {
		t.Fatal(err)
	}
	if err := agent.Revoke(removed.Pin()); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(agent.Dir())
	if err != nil {
		t.Fatal(err)
	}
	half, err := NewStore(agent.Dir()) // a join that is repeated
	if err != nil {
		t.Fatal(err)
	}
	if !half.Revoked(removed.Pin()) {
		t.Error("it is forgotten by a join")
	}
	for name, s := range map[string]*Store{"told": agent, "opened again": again} {
		if err := calls(s, removed); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: the removed coordinator is told %v", name, err)
		}
		if err := calls(s, stays); err != nil {
			t.Errorf("%s: the one that stays is told %v", name, err)
		}
		if _, _, err := handshake(ClientTLS(removed, RoleAgent), ServerTLS(s, tls.RequireAndVerifyClientCert)); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: the removed coordinator came in: %v", name, err)
		}
	}
}

// TestRevokedKeyWasNotWrittenAgain: where the disk took it not at first, it was forgotten with the process.
func TestRevokedKeyWasNotWrittenAgain(t *testing.T) {
	ca, err := NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, ca, Peer{Cluster: "c", Role: RoleOperator, Name: "alice"})
	key, away := [32]byte{1}, s.Dir()+"-away"
	if err := os.Rename(s.Dir(), away); err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(key); err == nil || !s.Revoked(key) {
		t.Fatalf("without its directory: %v, revoked %v", err, s.Revoked(key))
	}
	if err := os.Rename(away, s.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(key); err != nil {
		t.Fatal(err)
	}
	if again, err := OpenStore(s.Dir()); err != nil || !again.Revoked(key) {
		t.Errorf("opened again it is believed: %v", err)
	}
}

func TestRevokedKeysAreBounded(t *testing.T) {
	ca, err := NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, ca, Peer{Cluster: "c", Role: RoleOperator, Name: "alice"})
	keys := make([][32]byte, maxRevoked+1)
	for i := range keys {
		keys[i] = [32]byte{byte(i), byte(i >> 8)}
	}
	if err := s.Revoke(keys...); err != nil {
		t.Fatal(err)
	}
	if !s.Revoked(keys[0]) || s.Revoked(keys[maxRevoked]) {
		t.Error("not the first ones are remembered")
	}
	path := filepath.Join(s.Dir(), revokedFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Size() != maxRevoked*65 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte("half a key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(s.Dir()); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a file that is damaged: %v", err)
	}
}
