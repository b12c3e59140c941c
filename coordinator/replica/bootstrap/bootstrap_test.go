package bootstrap_test

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/apply"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/bootstrap"
	"github.com/farrier-project/farrier/coordinator/replica/entry"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
	"github.com/farrier-project/farrier/pkg/fault"
)

const cluster = "0123456789abcdef"

var first = command.Command{ // read-only
	Header: command.Header{Cluster: cluster, At: time.Unix(1790000000, 0), Actor: "operator test", Level: 1},
	Body:   command.InitCluster{ClusterID: cluster, CACert: []byte{1}, Settings: command.DefaultSettings()},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func place(t *testing.T) home.Place {
	return home.Place{Cluster: cluster, Member: "c1", Dir: filepath.Join(t.TempDir(), "data")}
}

func open(t *testing.T, p home.Place) *home.Home {
	t.Helper()
	h, err := home.Open(p, fatal.NewLatch(slog.New(slog.DiscardHandler), func() {}), func(snapshot.Taken) {})
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

func TestCluster(t *testing.T) {
	p := place(t)
	must(t, bootstrap.Cluster(p, "127.0.0.1:7601", first))
	for name, err := range map[string]error{"Cluster": bootstrap.Cluster(p, "127.0.0.1:7601", first), "Join": bootstrap.Join(p)} {
		if !fault.Is(err, fault.Exists) {
			t.Errorf("%s again: %v", name, err)
		}
	}
	h := open(t, p)
	var conf, l raft.Log
	must(t, h.Log.GetLog(1, &conf))
	must(t, h.Log.GetLog(2, &l))
	if s := raft.DecodeConfiguration(conf.Data).Servers; len(s) != 1 || s[0].ID != "c1" || s[0].Address != "127.0.0.1:7601" || s[0].Suffrage != raft.Voter {
		t.Errorf("the members are %+v", s)
	}
	k, content, err := entry.Open(cluster, l.Data)
	must(t, err)
	if c, err := command.Decode(content); k != entry.Commands || err != nil || len(c) != 1 || c[0].Header.Actor != "operator test" {
		t.Errorf("the first entry is of kind %d: %+v, %v", k, c, err)
	}
	for name, err := range map[string]error{
		"another cluster": bootstrap.Cluster(home.Place{Cluster: "another", Member: "c1", Dir: t.TempDir()}, "a", first),
		"no address":      bootstrap.Cluster(place(t), "", first),
		"another command": bootstrap.Cluster(place(t), "a", command.Command{Header: first.Header, Body: command.NewGeneration{Reason: "x"}}),
	} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJoin(t *testing.T) {
	p := place(t)
	must(t, bootstrap.Join(p))
	if last, err := open(t, p).Log.LastIndex(); err != nil || last != 0 {
		t.Errorf("the log ends at %d, %v", last, err)
	}
}

// saved is an archive of a cluster with a second member, and of its generation and index.
func saved(t *testing.T) (*bytes.Buffer, uint16, uint64) {
	t.Helper()
	s := apply.New()
	for i, b := range []command.Body{first.Body, command.PutMember{Member: command.Member{ID: "c2", APIAddress: "a", Level: 1}}} {
		if res := s.Apply(uint64(i+1), command.Command{Header: first.Header, Body: b}); res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	var out bytes.Buffer
	_, err := archive.Write(t.Context(), &out, archive.Image{View: s.View(), Applied: 2}, time.Unix(1790000000, 0))
	must(t, err)
	return &out, s.View().Cluster().Generation, s.View().Index()
}

// TestRecover: the new member's snapshot is the archive's state, far above it, and without the old members.
func TestRecover(t *testing.T) {
	in, generation, index := saved(t)
	lost, err := bootstrap.ReadLost(t.Context(), in, 0)
	must(t, err)
	p := place(t)
	if err := bootstrap.Recover(home.Place{Cluster: "another", Member: "c1", Dir: p.Dir}, "a", time.Now(), lost); !fault.Is(err, fault.Invalid) {
		t.Errorf("as another cluster: %v", err)
	}
	must(t, bootstrap.Recover(p, "127.0.0.1:7601", time.Unix(1790000000, 0), lost, command.PutMember{Member: command.Member{ID: "c1", APIAddress: "b", Level: 1}}))
	h := open(t, p)
	list, err := h.Snapshots.List()
	must(t, err)
	if len(list) != 1 || list[0].Index != index+1<<32 || len(list[0].Configuration.Servers) != 1 || list[0].Configuration.Servers[0].ID != "c1" {
		t.Fatalf("the snapshots are %+v", list)
	}
	_, r, err := h.Snapshots.Open(list[0].ID)
	must(t, err)
	s, applied, err := archive.ReadImage(r)
	must(t, errors.Join(err, r.Close()))
	_, old := s.View().Member("c2")
	_, more := s.View().Member("c1")
	if applied != list[0].Index || s.View().Cluster().Generation < generation+64 || old || !more {
		t.Errorf("applied %d, generation %d, the old member is there: %v, the new: %v", applied, s.View().Cluster().Generation, old, more)
	}
	if _, err := bootstrap.ReadLost(t.Context(), bytes.NewReader([]byte("no archive")), 0); !fault.Is(err, fault.Corrupt) {
		t.Errorf("no archive: %v", err)
	}
}
