package rpc

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/fleet"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/gate"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/membership"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/coordinator/watch"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Reader is this member's part in the consensus, and its view of the state.
type Reader interface {
	leader.Reader
	request.Reader
}

// Queue proposes what may meet a held lock.
type Queue interface {
	request.Queue
	// Queued is how many callers wait for the node; zero on a member that does not lead.
	Queued(id node.ID) int
}

// Progress is the leader's memory of what runs: the newest progress of steps, and agents' free workers.
type Progress interface {
	// Progress is what the node's running step last said of itself.
	Progress(id node.ID) (flow.ID, int, *farrierv1.Progress, bool)
	// FreeWorkers is what the agent last advertised.
	FreeWorkers(agent string) uint32
}

// Config is what the API needs. All fields but those with a default must be set.
type Config struct {
	ID       string         // this member's name
	Own      command.Member // where this member answers; its record in the state may be behind
	Reader   Reader
	Proposer request.Proposer
	Queue    Queue
	Changes  watch.Changes
	Cluster  membership.Cluster
	Progress Progress
	// Rebalance names the moves that would bring resting nodes where new ones would go.
	Rebalance func(v *state.View, group string, limit int) []command.Move
	// HandOn gives the leadership to another member, and returns when that was tried.
	HandOn func()
	// Status is where the log stands, for people.
	Status    func() (term, committed uint64)
	Keyring   *secret.Keyring
	Transport http.RoundTripper // to other coordinators' APIs, with this member's certificate
	Clock     clock.Clock
	Log       *slog.Logger
	// LeaderWait is how long a request waits for a leader before it fails with no_quorum. Default 5 s.
	LeaderWait time.Duration
	// CertificateTTL is the life of certificates that Join and Renew issue. Default identity.LeafTTL.
	CertificateTTL time.Duration
	// MaxWatchers bounds the open Watch streams. Default 4,096.
	MaxWatchers int
	// SyncedEvery is how often a Watch says that all was sent, which is also its keep-alive. Default 5 s.
	SyncedEvery time.Duration
}

// API serves the services. It is safe for concurrent use.
type API struct {
	cfg     Config
	fleet   *fleet.Service
	methods map[string]access.Method
	leader  *leader.Finder
	desk    *request.Desk
	members *membership.Service
	watches *watch.Service
}

// New checks the table of methods and builds the API.
func New(cfg Config) (*API, error) {
	methods, err := access.Methods()
	if err != nil {
		return nil, err
	}
	if cfg.LeaderWait == 0 {
		cfg.LeaderWait = 5 * time.Second
	}
	if cfg.CertificateTTL == 0 {
		cfg.CertificateTTL = identity.LeafTTL
	}
	if cfg.MaxWatchers == 0 {
		cfg.MaxWatchers = 4096
	}
	if cfg.SyncedEvery == 0 {
		cfg.SyncedEvery = 5 * time.Second
	}
	find := leader.New(leader.Config{Self: cfg.ID, Reader: cfg.Reader, Transport: cfg.Transport, Wait: cfg.LeaderWait})
	desk := request.New(request.Config{Member: cfg.ID, Reader: cfg.Reader, Proposer: cfg.Proposer, Queue: cfg.Queue, Leader: find, Clock: cfg.Clock})
	return &API{cfg: cfg, methods: methods, leader: find, desk: desk,
		members: membership.New(membership.Config{ID: cfg.ID, Own: cfg.Own, Desk: desk, Leader: find, Reader: cfg.Reader, Cluster: cfg.Cluster,
			HandOn: cfg.HandOn, Status: cfg.Status, Keyring: cfg.Keyring, Clock: cfg.Clock, Log: cfg.Log, CertificateTTL: cfg.CertificateTTL}),
		watches: watch.New(watch.Config{Desk: desk, Leader: find, Changes: cfg.Changes, Progress: cfg.Progress.Progress,
			MaxWatchers: cfg.MaxWatchers, SyncedEvery: cfg.SyncedEvery}),
		fleet: fleet.New(fleet.Config{Desk: desk, Keyring: cfg.Keyring, Queued: cfg.Queue.Queued, Progress: cfg.Progress.Progress,
			FreeWorkers: cfg.Progress.FreeWorkers, Rebalance: cfg.Rebalance}),
	}, nil
}

// FollowLeader looks who leads until ctx ends; the server room runs it.
func (a *API) FollowLeader(ctx context.Context) error {
	wake, stop := a.cfg.Changes.Subscribe()
	defer stop()
	return a.leader.Run(ctx, wake)
}

// Guard ends the calls of those whose certificates are taken back, until ctx ends; the server room runs it.
func (a *API) Guard(ctx context.Context) error {
	wake, stop := a.cfg.Changes.Subscribe()
	defer stop()
	return a.desk.Guard(ctx, wake)
}

// KeepVoters makes voters of the coordinators that joined, until ctx ends; the server room runs it. See membership.Service.
func (a *API) KeepVoters(ctx context.Context, reach membership.Reach) error {
	return a.members.KeepVoters(ctx, reach)
}

// Handler serves the public services on the API listener.
func (a *API) Handler() http.Handler {
	opts := gate.Options(a.cfg.Log)
	mux := http.NewServeMux()
	mux.Handle(fc.NewNodeServiceHandler(a.fleet, opts...))
	mux.Handle(fc.NewPortServiceHandler(a.fleet, opts...))
	mux.Handle(fc.NewLockServiceHandler(a.fleet, opts...))
	mux.Handle(fc.NewRingServiceHandler(a.fleet, opts...))
	mux.Handle(fc.NewAgentServiceHandler(a.fleet, opts...))
	mux.Handle(fc.NewWatchServiceHandler(a.watches, opts...))
	mux.Handle(fc.NewClusterServiceHandler(a.members, opts...))
	mux.Handle(fc.NewCertificateServiceHandler(a.members, opts...))
	mux.Handle(fc.NewJoinServiceHandler(a.members, opts...))
	return gate.New(gate.Config{Methods: a.methods, Desk: a.desk, Leader: a.leader, Transport: a.cfg.Transport, Members: a.members.Known, Revoked: a.members.Revoked, Log: a.cfg.Log}, mux)
}
