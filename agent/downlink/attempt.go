package downlink

import (
	"encoding/hex"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
)

// attempt is one boot attempt and its ramdisk. Service.mu guards it.
type attempt struct {
	node, id, secret string
	flow             uint64
	expires          time.Duration
	macs             map[string]bool
	machine          Machine // as the BMC says

	key       [32]byte // of the ramdisk that claimed it
	claimed   bool
	known     bool // the coordinator has shown that it knows of the claim
	chain     [][]byte
	chainTill time.Duration // a lookup after it gets a new one
	revoked   bool          // claimed twice
	closed    bool

	contact  bool // a ramdisk has been heard, here or by an earlier owner
	lastSeen time.Duration
	lastSeq  uint64
	silentAt time.Duration // when silence was last told; never: not silent
	heard    bool          // spoke after its silence was told, and that is not told yet
	leaving  bool          // told to power off: silence is what is wanted
	claimAt  time.Duration // when first_contact was last told, or never
	secondAt time.Duration // when second_claim was last told, or never
	wrong    string        // how a ramdisk's machine differed from the BMC's, "" if none did
	wrongAt  time.Duration // when wrong_machine was last told, or never
	second   string        // key hash of the second claim
	askedAt  time.Duration // firmware asked for a boot program under the claimed attempt, or never
	bootedAt time.Duration // when unexpected_boot was last told, or never

	command  *farrierv1.RamdiskCommand // nil: nothing to do
	canceled bool
	sentAt   time.Duration // when command was last handed out, or never
	sentTok  uint64
	cancelAt time.Duration // when its cancellation was, or never
	poll     uint64        // number of the newest NextCommand: older ones end
	wake     chan struct{}
	waiters  map[refKey]*confirmation
}

// never is before every time that matters.
const never = time.Duration(-1 << 62)

// refKey names an attempt of a step on this node.
type refKey struct {
	flow          uint64
	step, attempt uint32
}

func keyOf(r *farrierv1.OrderRef) refKey {
	return refKey{r.GetFlow(), r.GetStep(), r.GetAttempt()}
}

// confirmation is an outcome that was reported.
type confirmation struct {
	done chan struct{} // closed once committed
	ok   bool          // done is closed
}

func newAttempt(node string, b *farrierv1.BootAttempt, now time.Duration) *attempt {
	return &attempt{node: node, id: b.BootId, secret: b.Secret, flow: b.Flow, expires: now + b.GetExpiresIn().AsDuration(),
		lastSeen: now, silentAt: never, claimAt: never, secondAt: never, wrongAt: never, askedAt: never, bootedAt: never, sentAt: never, cancelAt: never,
		wake: make(chan struct{}), waiters: map[refKey]*confirmation{}}
}

// learn takes what an assignment says of the attempt.
func (a *attempt) learn(as *farrierv1.Assign, b *farrierv1.BootAttempt) {
	a.macs = make(map[string]bool, len(as.Ports))
	for _, p := range as.Ports {
		a.macs[normalMAC(p.Address)] = true
	}
	if a.machine == (Machine{}) { // another agent prepared the boot
		a.machine = Machine{UUID: b.GetSystemUuid(), Serial: b.GetSerial()}
	}
	key, ok := parseKey(b.GetKeyHash())
	if !ok {
		return
	}
	if a.claimed && a.key != key && !a.revoked {
		a.revoke(key) // another agent gave it to another ramdisk
	}
	if !a.claimed {
		a.claimed, a.contact, a.key = true, true, key // lastSeen stays the receipt: silence counts from there
	}
	a.known = a.key == key
}

// claim binds the attempt to a ramdisk's key.
func (a *attempt) claim(key [32]byte) {
	a.claimed, a.contact, a.key = true, true, key
}

func (a *attempt) revoke(key [32]byte) {
	a.revoked, a.second, a.secondAt = true, hex.EncodeToString(key[:]), never
	a.chain = nil
	a.wakeAll()
}

func (a *attempt) seen(now time.Duration) {
	a.heard = a.heard || a.silentAt != never
	a.contact, a.lastSeen, a.silentAt = true, now, never
	if a.askedAt != never && now-a.askedAt > time.Second {
		a.askedAt = never // it lives: the request was another machine's, or a stray packet
	}
}

// wakeAll makes waiting calls look again.
func (a *attempt) wakeAll() {
	close(a.wake)
	a.wake = make(chan struct{})
}

func (a *attempt) edge(kind, detail string) *farrierv1.Edge {
	e := &farrierv1.Edge{Node: a.node, Flow: a.flow, BootId: a.id, Kind: kind, Detail: detail}
	if kind == edgeFirstContact {
		e.KeyHash = hex.EncodeToString(a.key[:])
	}
	return e
}

// The kinds of edge.
const (
	edgeFirstContact = "first_contact"
	edgeSilent       = "silent"
	edgeHeard        = "heard"
	edgeSecondClaim  = "second_claim"
	edgeUnexpected   = "unexpected_boot"
	edgeWrongMachine = "wrong_machine"
)

// due lists the edges that are to be told now.
func (s *Service) due(now time.Duration) (edges []*farrierv1.Edge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.boots {
		if a.revoked {
			if now-a.secondAt >= edgeRepeat {
				a.secondAt = now
				edges = append(edges, a.edge(edgeSecondClaim, "a second key, "+a.second+", claimed the boot attempt"))
			}
			continue
		}
		if !a.contact && a.wrong != "" {
			edges = append(edges, s.wrongMachine(a, now)...)
		}
		if !a.contact {
			continue
		}
		if a.claimed && !a.known && now-a.claimAt >= edgeRepeat {
			a.claimAt = now
			edges = append(edges, a.edge(edgeFirstContact, ""))
		}
		if a.heard {
			a.heard = false
			edges = append(edges, a.edge(edgeHeard, "the ramdisk speaks again"))
		}
		quiet := now - a.lastSeen
		if a.askedAt != never && now-a.askedAt >= s.quietTime() && a.lastSeen <= a.askedAt+time.Second && now-a.bootedAt >= s.silence {
			a.bootedAt = now
			edges = append(edges, a.edge(edgeUnexpected, "the machine started again without its ramdisk being told to stop"))
		}
		if quiet >= s.silence && !a.leaving && now-a.silentAt >= s.silence {
			a.silentAt = now
			edges = append(edges, a.edge(edgeSilent, "no heartbeat for "+quiet.Truncate(time.Second).String()))
		}
	}
	return edges
}

// quietTime is how long a ramdisk must have said nothing after its firmware asked to boot, until it is believed to be
// gone: a heartbeat and a half. The caller holds mu.
func (s *Service) quietTime() time.Duration { return s.heartbeat + s.heartbeat/2 }

// BootAsked is told by the boot servers that firmware or iPXE asked to boot under an attempt that is claimed. If the
// ramdisk stays quiet, the edge unexpected_boot follows.
func (s *Service) BootAsked(bootID string) {
	now := s.clock.Boottime()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.boots[bootID]
	if a == nil || !a.contact || a.leaving || a.askedAt != never {
		return
	}
	a.askedAt = now
}
