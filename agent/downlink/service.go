package downlink

import (
	"context"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// Defaults and bounds.
const (
	DefaultHeartbeat = 10 * time.Second
	DefaultSilence   = 60 * time.Second
	// DefaultCertTTL outlasts the longest step, an overwrite of a large disk; the certificate's rights end with the boot
	// attempt long before.
	DefaultCertTTL = 7 * 24 * time.Hour
	maxWait        = 30 * time.Second // of NextCommand
	confirmWait    = 20 * time.Second // of ReportStep
	resend         = time.Second      // the same command goes out no more often
	cancelResend   = 5 * time.Second
	edgeRepeat     = 5 * time.Second // until the coordinator shows that it knows
	tickEvery      = 250 * time.Millisecond
	maxBody        = 512 << 10 // bytes
	maxInventory   = 128 << 10 // bytes; this and the next two are what the coordinators take
	maxFacts       = 64
	maxFactBytes   = 8 << 10 // of all facts of one outcome
	maxText        = 8 << 10 // bytes of an error, or of a progress line
	maxKind        = 64      // bytes of an error's kind
	maxMACs        = 64
	maxClosed      = 4096 // closed boot ids remembered
	maxWaiters     = 64   // unconfirmed outcomes of one boot attempt
)

// Config is what a Service needs. Store, CA, OnEdge, OnOutcome and OnProgress are required.
type Config struct {
	Store *identity.Store // the agent's own
	CA    *identity.CA    // its ramdisk CA: Store.RamdiskCA; see SetCA
	// OnEdge, OnOutcome and OnProgress take what goes up. They may be called from many goroutines at once, and more than
	// once with the same fact; they must not block on the network.
	OnEdge     func(*farrierv1.Edge)
	OnOutcome  func(*farrierv1.StepOutcome)
	OnProgress func(*farrierv1.StepProgress)
	// OnClaim is told when a ramdisk holds a boot attempt, so that the boot servers start no second one. Optional.
	OnClaim func(bootID string)
	// Manifest is that of an image in the agent's cache. Optional.
	Manifest func(sha256 string) (*farrierv1.GetManifestResponse, error)
	// Images serves /images/ on the TLS port too. Optional.
	Images    http.Handler
	Heartbeat time.Duration // default DefaultHeartbeat; see SetTimes
	Silence   time.Duration // default DefaultSilence
	CertTTL   time.Duration // default DefaultCertTTL
	Clock     clock.Clock   // default clock.System
	Log       *slog.Logger
}

// Service implements farrierv1connect.RamdiskServiceHandler and the agent's side of it. It is safe for concurrent use.
type Service struct {
	cfg   Config
	log   *slog.Logger
	self  identity.Peer
	clock clock.Clock

	mu        sync.Mutex // guards all fields below and all attempts
	ca        *identity.CA
	nodes     map[string]*node
	boots     map[string]*attempt
	closed    map[string]struct{}
	order     []string // of closed, oldest first: a ring once full
	next      int
	agents    []*farrierv1.GroupAgent
	heartbeat time.Duration
	silence   time.Duration
	beats     uint32
	beaten    map[string]struct{}
}

// node is what is assigned.
type node struct {
	id    string
	epoch uint64
	token uint64 // of the newest order: the assignment's may be that of a lock which others hold meanwhile
	boot  *attempt
}

// New makes the service.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.CA == nil || cfg.OnEdge == nil || cfg.OnOutcome == nil || cfg.OnProgress == nil {
		return nil, fault.New(fault.Invalid, "downlink", "store, ramdisk CA and callbacks are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CertTTL <= 0 {
		cfg.CertTTL = DefaultCertTTL
	}
	if cfg.OnClaim == nil {
		cfg.OnClaim = func(string) {}
	}
	s := &Service{cfg: cfg, log: cfg.Log, self: cfg.Store.Peer(), clock: cfg.Clock, ca: cfg.CA, nodes: map[string]*node{},
		boots: map[string]*attempt{}, closed: map[string]struct{}{}, beaten: map[string]struct{}{}}
	s.SetTimes(cfg.Heartbeat, cfg.Silence)
	return s, nil
}

// SetTimes sets how often ramdisks are to beat and when one counts as silent; zero means the default. The leader says so in
// its welcome.
func (s *Service) SetTimes(heartbeat, silence time.Duration) {
	if heartbeat <= 0 {
		heartbeat = DefaultHeartbeat
	}
	if silence <= 0 {
		silence = DefaultSilence
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heartbeat, s.silence = heartbeat, silence
}

// SetCA takes a renewed ramdisk CA. Certificates of the earlier one hold until they end.
func (s *Service) SetCA(ca *identity.CA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ca = ca
}

// RenewCAAt is when two thirds of the ramdisk CA's life are over.
func (s *Service) RenewCAAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ca.RenewAt()
}

// SetAgents says who serves ramdisks in this group, this agent included. The list is not to be changed afterwards.
func (s *Service) SetAgents(agents []*farrierv1.GroupAgent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents = agents
}

// Assign takes an assignment, or what is newly known of one. A boot attempt that it does not carry on is closed: its
// ramdisk is told to halt. An older epoch is StaleToken.
func (s *Service) Assign(a *farrierv1.Assign) error {
	if a.GetNode() == "" {
		return fault.New(fault.Invalid, "assign", "no node is named")
	}
	now := s.clock.Boottime()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[a.Node]
	if n == nil {
		n = &node{id: a.Node}
		s.nodes[a.Node] = n
	}
	if a.Epoch < n.epoch {
		return fault.New(fault.StaleToken, "assign", "node %s has epoch %d, got %d", a.Node, n.epoch, a.Epoch)
	}
	n.epoch = a.Epoch
	b := a.GetBoot()
	if n.boot != nil && n.boot.id != b.GetBootId() {
		s.close(n.boot)
		n.boot = nil
	}
	if b.GetBootId() == "" {
		return nil
	}
	if n.boot == nil {
		n.boot = newAttempt(a.Node, b, now)
		s.boots[b.BootId] = n.boot
		delete(s.closed, b.BootId)
	}
	n.boot.learn(a, b)
	return nil
}

// Unassign takes the node away: another agent serves its ramdisk from now on. A higher epoch than the one named stays.
func (s *Service) Unassign(nodeID string, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[nodeID]
	if n == nil || n.epoch > epoch {
		return
	}
	if n.boot != nil {
		delete(s.boots, n.boot.id)
		n.boot.wakeAll()
	}
	delete(s.nodes, nodeID)
}

// CloseBoot ends a boot attempt: its ramdisk is told to halt.
func (s *Service) CloseBoot(bootID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boots[bootID]; b != nil {
		s.close(b)
		if n := s.nodes[b.node]; n != nil && n.boot == b {
			n.boot = nil
		}
	}
}

// close forgets an attempt and remembers its id. The caller holds mu.
func (s *Service) close(b *attempt) {
	delete(s.boots, b.id)
	b.closed = true
	b.wakeAll()
	if _, ok := s.closed[b.id]; ok {
		return
	}
	s.closed[b.id] = struct{}{}
	if len(s.order) < maxClosed {
		s.order = append(s.order, b.id)
		return
	}
	delete(s.closed, s.order[s.next])
	s.order[s.next] = b.id
	s.next = (s.next + 1) % maxClosed
}

// Summary counts heartbeats and names the boots heard since the last call.
func (s *Service) Summary() *farrierv1.HeartbeatSummary {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := &farrierv1.HeartbeatSummary{Beats: s.beats}
	for id := range s.beaten {
		sum.Boots = append(sum.Boots, id)
	}
	s.beats = 0
	clear(s.beaten)
	return sum
}

// Run watches for silence and tells unconfirmed edges again, until the context ends.
func (s *Service) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.emit(s.due(s.clock.Boottime()))
		}
	}
}

func (s *Service) emit(edges []*farrierv1.Edge) {
	for _, e := range edges {
		s.log.Info("ramdisk edge", "node", e.Node, "boot", e.BootId, "kind", e.Kind, "detail", e.Detail)
		s.cfg.OnEdge(e)
	}
}

func parseKey(hexKey string) (key [32]byte, ok bool) {
	b, err := hex.DecodeString(hexKey)
	if err != nil || len(b) != 32 {
		return key, false
	}
	return [32]byte(b), true
}

func normalMAC(text string) string { return strings.ReplaceAll(strings.ToLower(text), "-", ":") }
