package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/config"
	"github.com/farrier-project/farrier/pkg/fault"
)

func web(i int) *farrierv1.Node {
	return &farrierv1.Node{Name: fmt.Sprintf("web-%d", i), Driver: "fake-hardware", Ports: []*farrierv1.Port{{Address: fmt.Sprintf("52:54:00:00:00:%02x", i)}}}
}

// TestThreeCoordinators is the life of a small cluster: joins by tokens, writes on followers, bad input, the death
// of the leader, the loss of the quorum.
func TestThreeCoordinators(t *testing.T) {
	s := newSite(t)
	s.join("c2")
	s.join("c3")
	s.waitVoters(3)

	_, err := s.nodes("c2").CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(1)})
	if got := kindOf(t, err); got != fault.NoAgent {
		t.Errorf("without an agent: %v, want no_agent", err)
	}
	s.agent("a1", "default")
	lead := s.leader("c2")
	followers := others(lead)
	res, err := s.nodes(followers[0]).CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(1)})
	if err != nil || res.GetNode().GetAgent() != "a1" {
		t.Fatalf("create on a follower: %v, %v", res, err)
	}
	for _, m := range []string{"c1", "c2", "c3"} {
		got, err := s.nodes(m).GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-1"})
		if err != nil || got.GetNode().GetId() != res.GetNode().GetId() {
			t.Errorf("a linearizable read on %s: %v, %v", m, got, err)
		}
	}
	s.refusals(followers)

	watched := s.watchCreates(followers[0])
	s.end(s.members[lead])
	until(t, "a write after the leader's death", func() error {
		_, err := s.nodes(followers[1]).CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: web(2)})
		if err != nil && kindOf(t, err) == fault.Exists { // an answer that was lost
			return nil
		}
		return err
	})
	for _, m := range followers {
		if _, err := s.nodes(m).GetNode(t.Context(), &farrierv1.GetNodeRequest{Node: "web-2"}); err != nil {
			t.Errorf("a linearizable read on %s: %v", m, err)
		}
	}
	select {
	case name := <-watched:
		if name != "web-2" {
			t.Errorf("the watch across the change of leader saw %s", name)
		}
	case <-time.After(patience):
		t.Error("the watch on a follower saw nothing")
	}

	s.end(s.members[s.leader(followers[0])])
	last := followers[0]
	if s.members[last].ended() {
		last = followers[1]
	}
	until(t, "the last one hears of no leader", func() error {
		res, err := s.cluster(last).GetCluster(t.Context(), &farrierv1.GetClusterRequest{})
		if err == nil && res.GetLeader() != "" {
			err = errors.New(res.GetLeader() + " leads")
		}
		return err
	})
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = s.nodes(last).CreateNode(ctx, &farrierv1.CreateNodeRequest{Node: web(3)})
	if got := kindOf(t, err); got != fault.NoQuorum {
		t.Errorf("a write without a quorum: %v, want no_quorum", err)
	}
	_, err = s.nodes(last).GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1"})
	if got := kindOf(t, err); got != fault.NoQuorum {
		t.Errorf("a read without a quorum: %v, want no_quorum", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the refusals took %v", took)
	}
	if _, err := s.nodes(last).GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1", Stale: true}); err != nil {
		t.Errorf("a stale read: %v", err)
	}
}

func (s *site) refusals(members []string) {
	t := s.t
	t.Helper()
	large := web(9)
	large.Description = strings.Repeat("x", 2<<20)
	wrong := web(9)
	wrong.Ports[0].Address = "52:54"
	taken := web(9)
	taken.Ports[0].Address = web(1).Ports[0].Address
	for what, tt := range map[string]struct {
		node *farrierv1.Node
		kind fault.Kind
	}{
		"duplicate name": {web(1), fault.Exists}, "duplicate MAC": {taken, fault.Exists}, "wrong MAC": {wrong, fault.Invalid}, "too large": {large, fault.TooLarge},
	} {
		for _, m := range members {
			_, err := s.nodes(m).CreateNode(t.Context(), &farrierv1.CreateNodeRequest{Node: tt.node})
			if err == nil {
				t.Errorf("%s on %s passed", what, m)
			} else if got := kindOf(t, err); got != tt.kind {
				t.Errorf("%s on %s: %v, want %s", what, m, err, tt.kind)
			}
		}
	}
}

// watchCreates answers the name of the next node that is created.
func (s *site) watchCreates(member string) <-chan string {
	out := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := fc.NewWatchServiceClient(s.client(), s.url(member)).Watch(ctx, &farrierv1.WatchRequest{Types: []string{"node.created"}})
	if err != nil {
		s.t.Fatal(err)
	}
	if !stream.Receive() { // synced: from here on it sees everything
		s.t.Fatal(stream.Err())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for stream.Receive() {
			if e := stream.Msg().GetEvent(); e != nil {
				out <- e.GetNodeName()
				return
			}
		}
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	return out
}

func (m *running) ended() bool {
	select {
	case _, ok := <-m.done:
		return !ok
	default:
		return false
	}
}

func others(not string) []string {
	var out []string
	for _, m := range []string{"c1", "c2", "c3"} {
		if m != not {
			out = append(out, m)
		}
	}
	return out
}

// TestRestartAndRejoin: a member comes back with its ports; a member that lost its log rejoins.
func TestRestartAndRejoin(t *testing.T) {
	s := newSite(t)
	s.join("c2")
	s.join("c3")
	s.waitVoters(3)
	old := s.members["c3"]
	s.end(old)
	back := s.launch("c3", Run)
	if back.api != old.api || back.raft != old.raft || back.rack != old.rack {
		t.Errorf("it came back at %s, %s, %s instead of %s, %s, %s", back.api, back.raft, back.rack, old.api, old.raft, old.rack)
	}
	if _, err := s.cluster("c3").GetSettings(t.Context(), &farrierv1.GetSettingsRequest{}); err != nil {
		t.Errorf("a linearizable read on the member that came back: %v", err)
	}
	s.end(back)
	var out strings.Builder
	env := System(s.config("c3"), "test")
	env.Out = &out
	if err := Rejoin(t.Context(), s.config("c3"), env, []string{s.members["c1"].api, s.members["c2"].api}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "the old log is in") {
		t.Errorf("it said %q", out.String())
	}
	s.launch("c3", Run)
	s.waitVoters(3)
	if _, err := s.cluster("c3").GetSettings(t.Context(), &farrierv1.GetSettingsRequest{}); err != nil {
		t.Errorf("a linearizable read on the member that rejoined: %v", err)
	}
}

func TestRefusesToStart(t *testing.T) {
	s := newSite(t)
	cfg := s.config("c1")
	if err := Init(t.Context(), cfg, System(cfg, "test"), InitOptions{}); !fault.Is(err, fault.Exists) {
		t.Errorf("init on a data directory in use: %v", err)
	}
	if err := Join(t.Context(), cfg, System(cfg, "test"), JoinOptions{Token: "farrier-join-x"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("join with a broken token: %v", err)
	}
	empty := s.config("c9")
	if err := Run(t.Context(), empty, System(empty, "test")); !fault.Is(err, fault.NotFound) {
		t.Errorf("run without init: %v", err)
	}
	other := s.config("c9")
	other.Data = filepath.Join(s.dir, "c1")
	if err := Run(t.Context(), other, System(other, "test")); !fault.Is(err, fault.Invalid) {
		t.Errorf("run under another name: %v", err)
	}
	res, err := s.cluster("c1").CreateJoinToken(t.Context(), &farrierv1.CreateJoinTokenRequest{Role: "agent", Name: "a1"})
	if err != nil {
		t.Fatal(err)
	}
	fresh := config.Config{}
	if err := Join(t.Context(), fresh, System(cfg, "test"), JoinOptions{Token: res.GetToken()}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a coordinator joins with an agent's token: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{nil: ExitOK, context.Canceled: ExitOK, fault.New(fault.Invalid, "", "x"): ExitUsage, fault.New(fault.Corrupt, "", "x"): ExitFailure} {
		if got := ExitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
