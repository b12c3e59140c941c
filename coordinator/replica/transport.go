package replica

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// transport wraps a raft.Transport: it remembers, per peer, the newest AppendEntries that was acknowledged, by
// when it was sent, refuses everything once it is cut, and offers no pipelining (replication that is pipelined stays wedged
// after a follower's disk stalled, until the leader restarts).
type transport struct {
	raft.Transport
	cut  atomic.Bool
	sent atomic.Uint64 // counts sendings and reads: an order, which no clock can give

	mu    sync.Mutex
	acks  map[raft.ServerID]ack
	moved chan struct{} // closed and replaced at each acknowledgement
}

// ack is the newest acknowledged request to a peer.
type ack struct {
	term  uint64
	sent  uint64    // its place in transport.sent
	match uint64    // highest index of a log entry known to be in the peer's log, of this term
	at    time.Time // of the answer, for people
	level time.Time // when a request was sent after which the peer had all that was committed by then
}

func newTransport(t raft.Transport) *transport {
	return &transport{Transport: t, acks: map[raft.ServerID]ack{}, moved: make(chan struct{})}
}

// close cuts this member off. It may be called at any time, from any goroutine.
func (t *transport) close() {
	if t.cut.Swap(true) {
		return
	}
	if c, ok := t.Transport.(raft.WithClose); ok {
		_ = c.Close() // nothing is left to tell the error to: the member is stopping
	}
	if c, ok := t.Transport.(interface{ CloseStreams() }); ok {
		c.CloseStreams()
	}
}

// Close implements raft.WithClose.
func (t *transport) Close() error {
	t.close()
	return nil
}

// AppendEntriesPipeline implements raft.Transport: there is none.
func (t *transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.cut.Load() {
		return errClosed
	}
	sent, began := t.sent.Add(1), time.Now()
	if err := t.Transport.AppendEntries(id, target, req, resp); err != nil {
		return err
	}
	// A rejection for a log that is behind is of this term too, but raft's own count ignores it, and so does this.
	if resp.Success && resp.Term == req.Term {
		a := ack{term: req.Term, sent: sent, at: time.Now()}
		if req.PrevLogEntry > 0 || len(req.Entries) > 0 { // not a bare heartbeat
			a.match = req.PrevLogEntry + uint64(len(req.Entries))
			if a.match >= req.LeaderCommitIndex {
				a.level = began
			}
		}
		t.acked(id, a)
	}
	return nil
}

func (t *transport) acked(id raft.ServerID, a ack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.acks[id]
	if a.term < old.term {
		return
	}
	if a.term == old.term {
		a.match = max(a.match, old.match)
		a.sent = max(a.sent, old.sent)
		if a.level.Before(old.level) {
			a.level = old.level
		}
	}
	t.acks[id] = a
	close(t.moved)
	t.moved = make(chan struct{})
}

// newest is the newest acknowledgement of the peer, and moved is closed at the next one of any; zero when there was none.
func (t *transport) newest(id raft.ServerID) (a ack, moved <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.acks[id], t.moved
}

// forget drops what a peer acknowledged.
func (t *transport) forget(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.acks, id)
}

// stored tells whether a majority of the voters, this member among them, has the log entry, as far as the term's leader
// was told.
func (t *transport) stored(voters []raft.ServerID, self raft.ServerID, term, index uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, id := range voters {
		if a := t.acks[id]; id == self || a.term == term && a.match >= index {
			n++
		}
	}
	return n >= len(voters)/2+1
}

// quorum tells whether a majority of the voters, this member among them, acknowledged a request of the term that was
// sent after since; if not, wait is closed at the next acknowledgement.
func (t *transport) quorum(voters []raft.ServerID, self raft.ServerID, term, since uint64) (ok bool, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, id := range voters {
		if a := t.acks[id]; id == self || a.term == term && a.sent > since {
			n++
		}
	}
	return n >= len(voters)/2+1, t.moved
}

// matched tells whether all the voters have the log entry; if not, wait is closed at the next acknowledgement.
func (t *transport) matched(voters []raft.ServerID, self raft.ServerID, term, index uint64) (ok bool, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range voters {
		if a := t.acks[id]; id != self && (a.term != term || a.match < index) {
			return false, t.moved
		}
	}
	return true, nil
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.cut.Load() {
		return errClosed
	}
	return t.Transport.RequestVote(id, target, req, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	p, ok := t.Transport.(raft.WithPreVote)
	if !ok || t.cut.Load() {
		return errClosed
	}
	return p.RequestPreVote(id, target, req, resp)
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if t.cut.Load() {
		return errClosed
	}
	return t.Transport.InstallSnapshot(id, target, req, resp, data)
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if t.cut.Load() {
		return errClosed
	}
	return t.Transport.TimeoutNow(id, target, req, resp)
}
