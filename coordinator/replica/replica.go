package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/farrier-project/farrier/coordinator/replica/ballot"
	"github.com/farrier-project/farrier/coordinator/replica/batch"
	"github.com/farrier-project/farrier/coordinator/replica/fatal"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/replica/logger"
	"github.com/farrier-project/farrier/coordinator/replica/machine"
	"github.com/farrier-project/farrier/coordinator/replica/snapshot"
	"github.com/farrier-project/farrier/coordinator/replica/transport"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
)

// stopTimeout bounds an orderly stop.
const stopTimeout = 5 * time.Second

// Replica is one member of the cluster. Its methods are safe for concurrent use once Open returned; Run must be called,
// once, for anything to be answered.
type Replica struct {
	cfg     Config
	log     *slog.Logger
	latch   *fatal.Latch
	home    *home.Home
	machine *machine.Machine
	trans   *transport.Transport
	port    *transport.Port // nil in memory
	line    *transport.Line // nil on sockets
	side    sender
	raft    *raft.Raft

	queue    *batch.Queue
	reads    chan chan readAnswer
	observed chan raft.Observation
	hungUp   chan string   // a leader that ended a connection
	ended    chan struct{} // Run is over

	lead leadership
	subs struct {
		sync.Mutex
		all []*Subscription
	}

	ready        atomic.Bool // raft may be asked
	ballots      *ballot.Box
	ballotsMoved chan struct{}
	hashSent     uint64 // of runHashes
	differs      atomic.Uint64
}

// Open reads and verifies the member's files, and starts raft. The place was made by the room bootstrap. Errors are
// fault.Corrupt with the file, the index and what to do; fault.Busy when another process has the files; fault.NotFound
// when there is no member.
func Open(cfg Config) (_ *Replica, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Replica{
		cfg: cfg, log: cfg.Log,
		reads: make(chan chan readAnswer, maxReads), observed: make(chan raft.Observation, 16), ended: make(chan struct{}),
		hungUp:  make(chan string, 1),
		lead:    leadership{moved: make(chan struct{})},
		ballots: ballot.New(cfg.Member), ballotsMoved: make(chan struct{}, 1),
	}
	r.latch = fatal.NewLatch(cfg.Log, r.cutOff)
	r.queue = batch.New(cfg.Cluster, r.latch, r.ended)
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	if r.home, err = home.Open(cfg.Place, r.latch, r.snapshotTaken); err != nil {
		return nil, err
	}
	r.machine = machine.New(machine.Options{
		Cluster: cfg.Cluster, File: r.home.Log.File(), Latch: r.latch, GetLog: r.home.Log.GetLog,
		Applied: r.wakeAll, Checked: r.checked, Roster: r.rosterMoved,
	})
	if err := r.openTransport(); err != nil {
		return nil, err
	}
	return r, r.start()
}

// snapshotTaken is told that a snapshot is in place.
func (r *Replica) snapshotTaken(t snapshot.Taken) {
	r.log.Info("a snapshot was written", "index", t.Index, "bytes", t.Bytes, "took", t.Took, "pause", r.machine.Paused())
}

// openTransport opens the way to the other members.
func (r *Replica) openTransport() error {
	self := raft.ServerID(r.cfg.Member)
	switch {
	case r.cfg.Network != nil:
		t := r.cfg.Transport
		if t == nil {
			t = r.cfg.Network.Transport(r.cfg.Advertise)
		}
		r.line = r.cfg.Network.Attach(r.cfg.Advertise, r.cfg.Member, r.heard)
		r.side, r.trans = r.line, transport.New(t, self)
	case r.cfg.Listener != nil && r.cfg.Identity != nil:
		if name := r.cfg.Identity.Peer().Name; name != r.cfg.Member {
			return fault.New(fault.Invalid, "open replica", "the certificate is of %q, the member is %q", name, r.cfg.Member)
		}
		r.port = transport.Listen(transport.PortOptions{
			Listener: r.cfg.Listener, Advertise: r.cfg.Advertise, Identity: r.cfg.Identity, Log: r.log,
			Heard: r.heard, HungUp: r.callerEnded, Refuse: r.revoked,
		})
		r.side, r.trans = r.port, transport.New(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: r.port, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: 10 * time.Second, Logger: logger.New(r.log),
		}), self)
	default:
		return fault.New(fault.Invalid, "open replica", "a listener and an identity are needed")
	}
	return nil
}

// revoked is the refusal of a key that was taken back. A key that this member has not heard of is none: a member that is behind
// must not lock itself out by its own state.
func (r *Replica) revoked(p identity.Peer) error {
	if c := r.View().Certificate(p.Key); c != nil {
		return state.Admit(c, string(p.Role), p.Name)
	}
	return nil
}

// rosterMoved is told that keys were certified or taken back.
func (r *Replica) rosterMoved() {
	if r.port != nil {
		r.port.CutRefused()
	}
}

// start starts raft. raft panics on what it cannot read.
func (r *Replica) start() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "start raft", "panic: %v", p)
		}
		if stop := (*fatal.Error)(nil); errors.As(r.latch.Failed(), &stop) && err != nil {
			err = stop.Err
		}
	}()
	logs, err := raft.NewLogCache(logCacheEntries, r.home.Log)
	if err != nil {
		return err
	}
	r.raft, err = raft.NewRaft(r.cfg.raft(), r.machine, logs, r.home.Log, r.home.Snapshots, r.trans)
	if err != nil {
		return fault.Wrap("start raft", errors.Join(r.home.Snapshots.Failed(), r.machine.Failed(), err))
	}
	r.home.RaftRuns()
	r.raft.RegisterObserver(raft.NewObserver(r.observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	}))
	r.ready.Store(true)
	return nil
}

// Run serves until the context ends, then stops in order: leadership is handed on, entries on their way are answered.
// A *fatal.Error is returned at once, when this member must not go on: the process exits with its code.
func (r *Replica) Run(ctx context.Context) error {
	defer close(r.ended)
	loops, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, loops := errgroup.WithContext(loops)
	g.Go(func() error { r.queue.Run(loops, r.raft); return nil })
	g.Go(func() error { return r.runLead(loops) })
	g.Go(func() error { return r.runObserver(loops) })
	g.Go(func() error { return r.runReads(loops) })
	g.Go(func() error { return r.runHashes(loops) })
	g.Go(func() error { return r.runWatchdog(loops) })
	g.Go(func() error { r.runSnapshots(loops); return nil })
	g.Go(func() error { r.runStanding(loops); return nil })
	g.Go(func() error { r.runPages(loops); return nil })
	select {
	case <-ctx.Done():
	case <-r.latch.Fired():
		r.raft.Shutdown() // not waited for: raft may hang in a store
		return r.latch.Failed()
	}
	r.HandOn()
	cancel()
	stopped := make(chan error, 1)
	go func() {
		err := g.Wait()
		err = errors.Join(err, r.raft.Shutdown().Error())
		stopped <- errors.Join(err, r.release())
	}()
	select {
	case err := <-stopped:
		return err
	case <-r.latch.Fired():
		return r.latch.Failed()
	case <-time.After(stopTimeout):
		return r.latch.Fail(fault.New(fault.Timeout, "stop coordinator", "it did not stop within %v", stopTimeout))
	}
}

// HandOn gives the leadership to another member, and returns when that was tried.
func (r *Replica) HandOn() {
	if r.raft.State() == raft.Leader && len(r.voters()) > 1 {
		r.handOn()
	}
}

// handOn gives the leadership to another member, so that the cluster does not wait for an election timeout.
func (r *Replica) handOn() {
	done := make(chan error, 1)
	f := r.raft.LeadershipTransfer()
	go func() { done <- f.Error() }() // raft bounds it by the election timeout
	select {
	case err := <-done:
		if err != nil {
			r.log.Info("leadership was not handed on", "err", err)
		}
	case <-time.After(2 * r.cfg.Election):
	}
}

// cutOff takes the member off its peers, once there is a way to them.
func (r *Replica) cutOff() {
	if r.trans != nil {
		_ = r.trans.Close() // it never fails
	}
}

// release closes what Open opened, raft excepted.
func (r *Replica) release() error {
	r.cutOff()
	if r.port != nil {
		_ = r.port.Close() // closed with the transport already
		r.port.Wait()
	}
	if r.line != nil {
		r.line.Detach()
	}
	if r.home != nil {
		return r.home.Close()
	}
	return nil
}

// View is the state after the newest entry applied here.
func (r *Replica) View() *state.View {
	v, _ := r.machine.Newest()
	return v
}

// Stats is where the member stands.
type Stats struct {
	Member                         string
	Role                           string // leader, follower, candidate, shutdown
	Leader                         string // member that leads; "" when unknown
	Term, Last, Committed, Applied uint64
	Snapshot                       uint64 // index of the newest
	Waiting                        int    // proposals not yet in an entry
	Differs                        uint64 // newest index at which members differ without a majority; 0: none
	Servers                        []Server
}

// Server is a member of the cluster as raft knows it.
type Server struct {
	ID, Address string
	Voter       bool
	// Contact is when it last acknowledged a request of this member's, which then leads or led. For people.
	Contact time.Time
	// Silent is for how long it has acknowledged nothing while this member leads. For people.
	Silent time.Duration
	// Match is the newest log entry that it is known to have, Behind how many committed ones it lacks, and Lag how long ago
	// it last had all that was committed, while this member leads: below a second where all is well. For people.
	Match, Behind uint64
	Lag           time.Duration
}

// Stats answers where the member stands.
func (r *Replica) Stats() Stats {
	applied := r.machine.Index()
	leader, _, _ := r.Leader()
	return Stats{
		Member: r.cfg.Member, Role: lower(r.raft.State()), Leader: leader, Term: r.raft.CurrentTerm(), Last: r.raft.LastIndex(),
		Committed: r.raft.CommitIndex(), Applied: applied, Snapshot: r.home.Log.Floor(), Waiting: r.queue.Waiting(),
		Differs: r.differs.Load(), Servers: r.Servers(),
	}
}

func lower(s raft.RaftState) string {
	switch s {
	case raft.Leader:
		return "leader"
	case raft.Follower:
		return "follower"
	case raft.Candidate:
		return "candidate"
	case raft.Shutdown:
		return "shutdown"
	default:
		return fmt.Sprintf("state %d", s)
	}
}
