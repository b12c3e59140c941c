package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/fatal"
)

// checkpoint is a member's state before the first entry past an index that HashEvery divides.
type checkpoint struct {
	index uint64
	hash  [16]byte
}

// maxCheckpoints bounds what is kept of each member and sent at once.
const maxCheckpoints = 8

// hashMessage is the newest checkpoints of a member, oldest first.
type hashMessage []checkpoint

func (m hashMessage) encode() []byte {
	out := []byte{byte(len(m))}
	for _, c := range m {
		out = append(binary.BigEndian.AppendUint64(out, c.index), c.hash[:]...)
	}
	return out
}

func readHashes(r io.Reader) (hashMessage, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	if n[0] > maxCheckpoints {
		return nil, fmt.Errorf("%d checkpoints, the bound is %d", n[0], maxCheckpoints)
	}
	raw := make([]byte, int(n[0])*24)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	m := make(hashMessage, n[0])
	for i := range m {
		m[i].index = binary.BigEndian.Uint64(raw[i*24:])
		copy(m[i].hash[:], raw[i*24+8:])
	}
	return m, nil
}

// ballots holds what each member says about its state. It is safe for concurrent use.
type ballots struct {
	self string
	mu   sync.Mutex
	said map[string]hashMessage
}

func newBallots(self string) *ballots { return &ballots{self: self, said: map[string]hashMessage{}} }

// put records checkpoints of a member.
func (b *ballots) put(member string, m hashMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.said[member]
	for _, c := range m {
		if len(kept) == 0 || c.index > kept[len(kept)-1].index {
			kept = append(kept, c)
		}
	}
	if n := len(kept) - maxCheckpoints; n > 0 {
		kept = append(hashMessage(nil), kept[n:]...)
	}
	b.said[member] = kept
}

// own is what this member has to say.
func (b *ballots) own() hashMessage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(hashMessage(nil), b.said[b.self]...)
}

// verdict compares this member with the voters. minority is the index at which a majority agrees on another hash;
// differ is the newest index at which somebody differs, whoever is right. 0 is none.
func (b *ballots) verdict(voters []string) (minority, differ uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, own := range b.said[b.self] {
		votes := map[[16]byte]int{}
		for _, v := range voters {
			for _, c := range b.said[v] {
				if c.index == own.index {
					votes[c.hash]++
				}
			}
		}
		if len(votes) > 1 || len(votes) == 1 && votes[own.hash] == 0 {
			differ = own.index
		}
		for h, n := range votes {
			if h != own.hash && n > len(voters)/2 {
				return own.index, differ
			}
		}
	}
	return 0, differ
}

// runHashes sends this member's checkpoints to the others as they come, and judges what comes back.
func (r *Replica) runHashes(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.ballotsMoved:
		}
		if err := r.judge(); err != nil {
			return r.latch.Fail(err)
		}
		own := r.ballots.own()
		if len(own) == 0 || own[len(own)-1].index == r.hashSent {
			continue
		}
		r.hashSent = own[len(own)-1].index
		var wg sync.WaitGroup
		for _, s := range r.servers() {
			if s.ID == raft.ServerID(r.cfg.Member) {
				continue
			}
			wg.Go(func() {
				if err := r.peers.send(ctx, string(s.Address), own); err != nil {
					r.log.Debug("state hash not delivered", "member", s.ID, "err", err)
				}
			})
		}
		wg.Wait()
	}
}

func (r *Replica) judge() error {
	var voters []string
	for _, s := range r.servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	minority, differ := r.ballots.verdict(voters)
	if minority != 0 {
		return fatal.Corrupt("replicated state", "at index %d a majority of the members agrees on another state", minority)
	}
	if differ != 0 && r.differs.Swap(differ) != differ {
		r.log.Error("members differ in their state, and there is no majority to say who is right", "index", differ)
	}
	return nil
}

// heard takes a message of another member.
func (r *Replica) heard(member string, m hashMessage) {
	known := false
	for _, s := range r.servers() {
		known = known || string(s.ID) == member
	}
	if !known || member == r.cfg.Member {
		return
	}
	r.ballots.put(member, m)
	poke(r.ballotsMoved)
}

// poke wakes a receiver up, once.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
