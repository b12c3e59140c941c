package transport_test

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/transport"
)

// peers is a raft.Transport to members that answer as a test says.
type peers struct {
	raft.Transport
	answer func(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error
	closed int
}

func (p *peers) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return p.answer(id, req, resp)
}

func (p *peers) Close() error {
	p.closed++
	return nil
}

func yes(_ raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	resp.Term, resp.Success = req.Term, true
	return nil
}

func entries(prev uint64, n int, term, commit uint64) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, Entries: make([]*raft.Log, n), LeaderCommitIndex: commit}
}

// TestAnAnswerToAnEarlierRequestCounted: what is acknowledged after the mark, and was sent before it, says nothing of now.
func TestAnAnswerToAnEarlierRequestCounted(t *testing.T) {
	voters := []raft.ServerID{"a", "b", "c"}
	held := make(chan struct{})
	p := &peers{}
	tr := transport.New(p, "a")
	sent := make(chan struct{})
	p.answer = func(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		close(sent)
		<-held
		return yes(id, req, resp)
	}
	done := make(chan error)
	go func() { done <- tr.AppendEntries("b", "", entries(5, 0, 3, 5), &raft.AppendEntriesResponse{}) }()
	<-sent
	mark := tr.Mark()
	ok, moved := tr.Quorum(voters, 3, mark)
	if ok {
		t.Fatal("nobody has answered")
	}
	close(held)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-moved
	if ok, _ = tr.Quorum(voters, 3, mark); ok {
		t.Error("an answer to a request from before the mark counts")
	}
	p.answer = yes
	if err := tr.AppendEntries("c", "", entries(0, 0, 3, 0), &raft.AppendEntriesResponse{}); err != nil { // a heartbeat
		t.Fatal(err)
	}
	if ok, _ = tr.Quorum(voters, 3, mark); !ok {
		t.Error("two of three are no quorum")
	}
	if ok, _ = tr.Quorum(voters, 4, mark); ok {
		t.Error("an answer of another term counts")
	}
}

func TestWhatPeersHave(t *testing.T) {
	voters := []raft.ServerID{"a", "b", "c"}
	p := &peers{answer: yes}
	tr := transport.New(p, "a")
	send := func(id raft.ServerID, req *raft.AppendEntriesRequest) {
		t.Helper()
		if err := tr.AppendEntries(id, "", req, &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
	}
	if tr.Stored(voters, 2, 1) {
		t.Error("nobody has anything")
	}
	send("b", entries(7, 3, 2, 8))
	if a, _ := tr.Newest("b"); a.Match != 10 || a.Term != 2 || a.Level.IsZero() || a.At.IsZero() {
		t.Errorf("b has %+v", a)
	}
	send("b", entries(0, 0, 2, 8)) // a heartbeat says nothing of the log, and takes nothing back
	if a, _ := tr.Newest("b"); a.Match != 10 || a.Level.IsZero() {
		t.Errorf("after a heartbeat b has %+v", a)
	}
	if !tr.Stored(voters, 2, 10) || tr.Stored(voters, 2, 11) || tr.Stored(voters, 3, 10) {
		t.Error("a and b have all up to 10, of term 2")
	}
	send("c", entries(2, 1, 2, 8))
	if a, _ := tr.Newest("c"); a.Match != 3 || !a.Level.IsZero() {
		t.Errorf("c lacks entries: %+v", a)
	}
	if ok, _ := tr.Matched(voters, 2, 3); !ok {
		t.Error("all have 3")
	}
	if ok, moved := tr.Matched(voters, 2, 4); ok || moved == nil {
		t.Error("c lacks 4")
	}
	p.answer = func(_ raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		resp.Term = req.Term // a rejection: its log is behind
		return nil
	}
	send("c", entries(20, 1, 2, 8))
	if a, _ := tr.Newest("c"); a.Match != 3 {
		t.Errorf("after a rejection c has %+v", a)
	}
	tr.Forget("b")
	if a, _ := tr.Newest("b"); a != (transport.Ack{}) {
		t.Errorf("b is remembered: %+v", a)
	}
}

// TestNothingPassesAClosedTransport in either direction, whoever calls; there is no pipeline at any time.
func TestNothingPassesAClosedTransport(t *testing.T) {
	p := &peers{answer: yes}
	tr := transport.New(p, "a")
	if _, err := tr.AppendEntriesPipeline("b", ""); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("a pipeline: %v", err)
	}
	for range 2 {
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if p.closed != 1 {
		t.Errorf("what is beneath was closed %d times", p.closed)
	}
	for name, err := range map[string]error{
		"AppendEntries":   tr.AppendEntries("b", "", entries(1, 1, 1, 1), &raft.AppendEntriesResponse{}),
		"RequestVote":     tr.RequestVote("b", "", nil, nil),
		"RequestPreVote":  tr.RequestPreVote("b", "", nil, nil),
		"InstallSnapshot": tr.InstallSnapshot("b", "", nil, nil, nil),
		"TimeoutNow":      tr.TimeoutNow("b", "", nil, nil),
	} {
		if !errors.Is(err, transport.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLine: side messages go where no cut is between, under the sender's name, and to who has the address now.
func TestLine(t *testing.T) {
	n := transport.NewNetwork(time.Second)
	var got []string
	attach := func(address, member string) *transport.Line {
		n.Transport(address)
		return n.Attach(address, member, func(from string, m io.Reader) {
			raw, err := io.ReadAll(m)
			if err != nil {
				t.Error(err)
			}
			got = append(got, from+" to "+member+": "+string(raw))
		})
	}
	one, old := attach("addr-1", "c1"), attach("addr-2", "c2")
	if err := one.Send(t.Context(), "addr-2", []byte("x")); err != nil {
		t.Error(err)
	}
	attach("addr-2", "c2 again")
	old.Detach() // not its address any more
	if err := one.Send(t.Context(), "addr-2", []byte("y")); err != nil {
		t.Error(err)
	}
	n.Isolate("addr-2")
	if err := one.Send(t.Context(), "addr-2", []byte("z")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("to one that is cut off: %v", err)
	}
	if want := []string{"c1 to c2: x", "c1 to c2 again: y"}; !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}
