package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// ahead is a wall clock that runs before the certificates' time.
type ahead struct {
	clock.System
	by time.Duration
}

func (a ahead) Now() time.Time { return a.System.Now().Add(a.by) }

// TestRenewsItsCertificate: at two thirds of its life, by the coordinator's own API.
func TestRenewsItsCertificate(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.dir, "c1", "identity")
	before := leaf(t, dir)
	s.end(s.members["c1"])
	s.launch("c1", func(ctx context.Context, cfg config.Config, env Env) error {
		env.Clock = ahead{by: identity.LeafTTL * 3 / 4}
		return Run(ctx, cfg, env)
	})
	until(t, "a renewed certificate", func() error {
		if bytes.Equal(leaf(t, dir), before) {
			return errors.New("it is the old one")
		}
		return nil
	})
	if _, err := s.cluster("c1").GetSettings(t.Context(), &farrierv1.GetSettingsRequest{}); err != nil {
		t.Errorf("a call after the renewal: %v", err)
	}
}

func leaf(t *testing.T, dir string) []byte {
	t.Helper()
	store, err := identity.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return store.Certificate().Leaf.Raw
}

// TestAClusterThatWasOffForAMonthStayedOff: when the certificates of all coordinators had ended, no two of them spoke to each
// other again, and no leader could renew any.
func TestAClusterThatWasOffForAMonthStayedOff(t *testing.T) {
	s := newSite(t)
	s.join("c2")
	s.join("c3")
	s.waitVoters(3)
	names := []string{"c1", "c2", "c3"}
	for _, name := range names {
		until(t, "its copy of the CA", func() error {
			_, err := os.Stat(filepath.Join(s.dir, name, authorityFile))
			return err
		})
	}
	for _, name := range names {
		s.end(s.members[name])
	}
	for _, name := range names {
		expire(t, s.config(name))
	}
	for _, name := range names {
		s.launch(name, Run)
	}
	s.waitVoters(3)
	s.leader("c2")
}

// expire puts a certificate that has ended in the place of a coordinator's.
func expire(t *testing.T, cfg config.Config) {
	t.Helper()
	a, err := readAuthority(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil { // it fills in the key file's name
		t.Fatal(err)
	}
	keys, err := secret.LoadKeyring(cfg.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := a.unseal(keys)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.OpenStore(identityDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Certify(ca, id.Peer(), []string{"127.0.0.1"}, -time.Minute); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(id.Certificate().Leaf.NotAfter); left > 0 {
		t.Fatalf("it is good for another %v", left)
	}
}

// TestEndsWithItsParent: the process ends when standard input does, and says where it listened.
func TestEndsWithItsParent(t *testing.T) {
	s := newSite(t)
	s.end(s.members["c1"])
	in, parent := io.Pipe()
	file := filepath.Join(s.dir, "address.json")
	m := s.launch("c1", func(ctx context.Context, cfg config.Config, env Env) error {
		cfg.ExitWithStdin, cfg.AddressFile = true, file
		env.Stdin = in
		return Run(ctx, cfg, env)
	})
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var at map[string]string
	if err := json.Unmarshal(raw, &at); err != nil || at["name"] != "c1" || at["api"] != m.api || at["raft"] != m.raft || at["rack"] != m.rack {
		t.Errorf("address file %s, %v", raw, err)
	}
	_ = parent.Close() // the parent dies
	select {
	case err := <-m.done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
		close(m.done)
	case <-time.After(patience):
		t.Error("it lives on")
	}
}

// TestSnapshotRoundTrip: what was saved comes back under a new generation, with a node that was deleted since.
func TestSnapshotRoundTrip(t *testing.T) {
	s := newSite(t)
	s.agent("a1", "default")
	if _, err := s.nodes("c1").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(1)}); err != nil {
		t.Fatal(err)
	}
	stream, err := s.cluster("c1").SaveSnapshot(t.Context(), &farrierv1.SaveSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var saved []byte
	for stream.Receive() {
		saved = append(saved, stream.Msg().GetChunk()...)
	}
	if err := errors.Join(stream.Err(), stream.Close()); err != nil || len(saved) == 0 {
		t.Fatalf("%d bytes, %v", len(saved), err)
	}
	if _, err := s.nodes("c1").DeleteNode(t.Context(), &farrierv1.DeleteNodeRequest{Node: "web-1"}); err != nil {
		t.Fatal(err)
	}
	restore := func(data []byte) (*farrierv1.RestoreSnapshotResponse, error) {
		up, err := s.cluster("c1").RestoreSnapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = up.Send(&farrierv1.RestoreSnapshotRequest{Chunk: data}) // its error is CloseAndReceive's
		return up.CloseAndReceive()
	}
	broken := bytes.Clone(saved)
	broken[len(broken)/2] ^= 1
	if _, err := restore(broken); err == nil {
		t.Error("a damaged snapshot was restored")
	}
	res, err := restore(saved)
	if err != nil || res.GetGeneration() != 2 || res.GetNodes() != 1 {
		t.Fatalf("restored %v, %v", res, err)
	}
	if _, err := s.nodes("c1").GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"}); err != nil {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ advertise, listen, bound, want string }{
		{"", "127.0.0.1:0", "127.0.0.1:4711", "127.0.0.1:4711"},
		{"", "10.0.0.1:7600", "10.0.0.1:7600", "10.0.0.1:7600"},
		{"c1.example:7600", "0.0.0.0:7600", "[::]:7600", "c1.example:7600"},
		{"c1.example:0", "0.0.0.0:0", "[::]:4711", "c1.example:4711"},
	} {
		if got := advertised(tt.advertise, tt.listen, tt.bound); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
	cfg := config.Default()
	cfg.Listen = config.Addresses{API: "127.0.0.1:0", Raft: "127.0.0.1:5", Rack: "127.0.0.1:0"}
	settle(&cfg, member{Listen: addresses{API: "127.0.0.1:41", Raft: "127.0.0.1:42"}})
	if want := (config.Addresses{API: "127.0.0.1:41", Raft: "127.0.0.1:5", Rack: "127.0.0.1:0"}); cfg.Listen != want {
		t.Errorf("settled on %+v", cfg.Listen)
	}
}
