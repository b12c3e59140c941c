package ballot

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Checkpoint is the hash of a member's state before the first entry past an index.
type Checkpoint struct {
	Index uint64
	Hash  [16]byte
}

// most bounds what is kept of each member and sent at once.
const most = 8

// Message is the newest checkpoints of a member, oldest first.
type Message []Checkpoint

// Encode is the message as Read reads it.
func (m Message) Encode() []byte {
	out := []byte{byte(len(m))}
	for _, c := range m {
		out = append(binary.BigEndian.AppendUint64(out, c.Index), c.Hash[:]...)
	}
	return out
}

// Read reads one message, and no byte past it.
func Read(r io.Reader) (Message, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	if n[0] > most {
		return nil, fmt.Errorf("%d checkpoints, the bound is %d", n[0], most)
	}
	raw := make([]byte, int(n[0])*24)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	m := make(Message, n[0])
	for i := range m {
		m[i].Index = binary.BigEndian.Uint64(raw[i*24:])
		copy(m[i].Hash[:], raw[i*24+8:])
	}
	return m, nil
}

// Box holds what each member says about its state. It is safe for concurrent use.
type Box struct {
	self string
	mu   sync.Mutex
	said map[string]Message
}

// New makes an empty box of the member self.
func New(self string) *Box { return &Box{self: self, said: map[string]Message{}} }

// Put records checkpoints of a member. What is not newer than what it said before is passed over.
func (b *Box) Put(member string, m Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.said[member]
	for _, c := range m {
		if len(kept) == 0 || c.Index > kept[len(kept)-1].Index {
			kept = append(kept, c)
		}
	}
	if n := len(kept) - most; n > 0 {
		kept = append(Message(nil), kept[n:]...)
	}
	b.said[member] = kept
}

// Own is what this member has to say.
func (b *Box) Own() Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(Message(nil), b.said[b.self]...)
}

// Verdict compares this member with the voters. minority is the index at which a majority agrees on another hash;
// differ is the newest index at which somebody differs, whoever is right. 0 is none.
func (b *Box) Verdict(voters []string) (minority, differ uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, own := range b.said[b.self] {
		votes := map[[16]byte]int{}
		for _, v := range voters {
			for _, c := range b.said[v] {
				if c.Index == own.Index {
					votes[c.Hash]++
				}
			}
		}
		if len(votes) > 1 || len(votes) == 1 && votes[own.Hash] == 0 {
			differ = own.Index
		}
		for h, n := range votes {
			if h != own.Hash && n > len(voters)/2 {
				return own.Index, differ
			}
		}
	}
	return 0, differ
}
