package transport

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// ErrClosed is of a call on a transport that is closed.
var ErrClosed = errors.New("the transport is closed")

// Transport wraps a raft.Transport: it remembers, per peer, the newest AppendEntries that was acknowledged, by
// when it was sent, refuses everything once it is closed, and offers no pipelining (replication that is pipelined stays wedged
// after a follower's disk stalled, until the leader restarts). It is safe for concurrent use.
type Transport struct {
	raft.Transport
	self raft.ServerID
	cut  atomic.Bool
	sent atomic.Uint64 // counts sendings and marks: an order, which no clock can give

	mu    sync.Mutex
	acks  map[raft.ServerID]Ack
	moved chan struct{} // closed and replaced at each acknowledgement
}

// Ack is the newest acknowledged request to a peer.
type Ack struct {
	Term  uint64
	Match uint64    // highest index of a log entry known to be in the peer's log, of this term
	At    time.Time // of the answer, for people
	Level time.Time // when a request was sent after which the peer had all that was committed by then
	sent  uint64    // its place in Transport.sent
}

// New wraps the transport of the member self, which it closes.
func New(t raft.Transport, self raft.ServerID) *Transport {
	return &Transport{Transport: t, self: self, acks: map[raft.ServerID]Ack{}, moved: make(chan struct{})}
}

// Close implements raft.WithClose: it cuts this member off, with all open connections.
func (t *Transport) Close() error {
	if t.cut.Swap(true) {
		return nil
	}
	if c, ok := t.Transport.(raft.WithClose); ok {
		_ = c.Close() // nothing is left to tell the error to: the member is stopping
	}
	if c, ok := t.Transport.(interface{ CloseStreams() }); ok {
		c.CloseStreams()
	}
	return nil
}

// AppendEntriesPipeline implements raft.Transport: there is none.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.cut.Load() {
		return ErrClosed
	}
	sent, began := t.sent.Add(1), time.Now()
	if err := t.Transport.AppendEntries(id, target, req, resp); err != nil {
		return err
	}
	// A rejection for a log that is behind is of this term too, but raft's own count ignores it, and so does this.
	if resp.Success && resp.Term == req.Term {
		a := Ack{Term: req.Term, sent: sent, At: time.Now()}
		if req.PrevLogEntry > 0 || len(req.Entries) > 0 { // not a bare heartbeat
			a.Match = req.PrevLogEntry + uint64(len(req.Entries))
			if a.Match >= req.LeaderCommitIndex {
				a.Level = began
			}
		}
		t.acked(id, a)
	}
	return nil
}

func (t *Transport) acked(id raft.ServerID, a Ack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.acks[id]
	if a.Term < old.Term {
		return
	}
	if a.Term == old.Term {
		a.Match = max(a.Match, old.Match)
		a.sent = max(a.sent, old.sent)
		if a.Level.Before(old.Level) {
			a.Level = old.Level
		}
	}
	t.acks[id] = a
	close(t.moved)
	t.moved = make(chan struct{})
}

// Newest is the newest acknowledgement of the peer, and moved is closed at the next one of any; zero when there was none.
func (t *Transport) Newest(id raft.ServerID) (a Ack, moved <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.acks[id], t.moved
}

// Forget drops what a peer acknowledged.
func (t *Transport) Forget(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.acks, id)
}

// Mark is now, in the order of the sendings: for Quorum.
func (t *Transport) Mark() uint64 { return t.sent.Add(1) }

// Stored tells whether a majority of the voters, this member among them, has the log entry, as far as the term's leader
// was told.
func (t *Transport) Stored(voters []raft.ServerID, term, index uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, id := range voters {
		if a := t.acks[id]; id == t.self || a.Term == term && a.Match >= index {
			n++
		}
	}
	return n >= len(voters)/2+1
}

// Quorum tells whether a majority of the voters, this member among them, acknowledged a request of the term that was
// sent after the mark; if not, wait is closed at the next acknowledgement.
func (t *Transport) Quorum(voters []raft.ServerID, term, mark uint64) (ok bool, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, id := range voters {
		if a := t.acks[id]; id == t.self || a.Term == term && a.sent > mark {
			n++
		}
	}
	return n >= len(voters)/2+1, t.moved
}

// Matched tells whether all the voters have the log entry; if not, wait is closed at the next acknowledgement.
func (t *Transport) Matched(voters []raft.ServerID, term, index uint64) (ok bool, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range voters {
		if a := t.acks[id]; id != t.self && (a.Term != term || a.Match < index) {
			return false, t.moved
		}
	}
	return true, nil
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.cut.Load() {
		return ErrClosed
	}
	return t.Transport.RequestVote(id, target, req, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	p, ok := t.Transport.(raft.WithPreVote)
	if !ok || t.cut.Load() {
		return ErrClosed
	}
	return p.RequestPreVote(id, target, req, resp)
}

// InstallSnapshot implements raft.Transport.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if t.cut.Load() {
		return ErrClosed
	}
	return t.Transport.InstallSnapshot(id, target, req, resp, data)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if t.cut.Load() {
		return ErrClosed
	}
	return t.Transport.TimeoutNow(id, target, req, resp)
}
