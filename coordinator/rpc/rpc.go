package rpc

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	fc "github.com/farrier-project/farrier/api/gen/farrier/v1/farrierv1connect"
	"github.com/farrier-project/farrier/coordinator/access"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/gate"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Level is the highest feature level that this build speaks.
const Level = 1

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

// Changes wakes its receiver after each applied entry and each change of leader. Wake-ups are coalesced.
type Changes interface {
	// Subscribe returns the wake-up channel and how to end it.
	Subscribe() (c <-chan struct{}, stop func())
}

// Cluster looks after the members of the Raft configuration.
type Cluster interface {
	Servers() ([]Server, error)
	// AddVoter lets a member catch up, as long as ctx lets it, and then makes it a voter. It is called again until it did.
	AddVoter(ctx context.Context, id, raftAddress string) error
	RemoveServer(ctx context.Context, id string) error
	SaveSnapshot(ctx context.Context, w io.Writer) error
	RestoreSnapshot(ctx context.Context, r io.Reader) error
}

// Server is one member of the Raft configuration.
type Server struct {
	ID, RaftAddress string
	Voter           bool
	LastContact     time.Duration // since the newest answer to this member, if it leads; 0 unknown
	Silent          time.Duration // how long it has not answered this member, while this leads
	Match, Behind   uint64        // newest log entry that it is known to have, committed ones that it lacks, while this leads
	Lag             time.Duration // how long ago it last had all that was committed, while this leads
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
	Version  string         // of the build
	Own      command.Member // where this member answers; its record in the state may be behind
	Reader   Reader
	Proposer request.Proposer
	Queue    Queue
	Changes  Changes
	Cluster  Cluster
	Progress Progress
	// Rebalance names the moves that would bring resting nodes where new ones would go.
	Rebalance func(v *state.View, group string, limit int) []command.Move
	// HandOn gives the leadership to another member, and returns when that was tried.
	HandOn func()
	// Status is where the log stands, for people.
	Status    func() (term, committed uint64)
	Keyring   *secret.Keyring
	Identity  *identity.Store
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
	Config
	in       message.Reader
	out      message.Writer
	methods  map[string]access.Method
	leader   *leader.Finder
	desk     *request.Desk
	watchers atomic.Int64
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
	return &API{Config: cfg, methods: methods, leader: find,
		desk: request.New(request.Config{Member: cfg.ID, Reader: cfg.Reader, Proposer: cfg.Proposer, Queue: cfg.Queue, Leader: find, Clock: cfg.Clock}),
		in:   message.Reader{Seal: sealer(cfg.Keyring), NewID: newUUID},
		out:  message.Writer{Queued: cfg.Queue.Queued, Progress: cfg.Progress.Progress},
	}, nil
}

// sealer closes secrets for one node and field each: the box opens nowhere else.
func sealer(k *secret.Keyring) func(node.ID, string, []byte) (node.Sealed, error) {
	return func(id node.ID, field string, plain []byte) (node.Sealed, error) {
		keyID, box, err := k.Seal(plain, "node/"+string(id)+"/"+field)
		return node.Sealed{KeyID: keyID, Box: box}, fault.Wrap("seal "+field, err)
	}
}

// newUUID draws a UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return message.UUID(b)
}

// FollowLeader looks who leads until ctx ends; the server room runs it.
func (a *API) FollowLeader(ctx context.Context) error {
	wake, stop := a.Changes.Subscribe()
	defer stop()
	return a.leader.Run(ctx, wake)
}

// Guard ends the calls of those whose certificates are taken back, until ctx ends; the server room runs it.
func (a *API) Guard(ctx context.Context) error {
	wake, stop := a.Changes.Subscribe()
	defer stop()
	return a.desk.Guard(ctx, wake)
}

// Handler serves the public services on the API listener.
func (a *API) Handler() http.Handler {
	opts := gate.Options(a.Log)
	mux := http.NewServeMux()
	mux.Handle(fc.NewNodeServiceHandler(nodeService{a}, opts...))
	mux.Handle(fc.NewPortServiceHandler(portService{a}, opts...))
	mux.Handle(fc.NewLockServiceHandler(lockService{a}, opts...))
	mux.Handle(fc.NewRingServiceHandler(ringService{a}, opts...))
	mux.Handle(fc.NewAgentServiceHandler(agentService{a}, opts...))
	mux.Handle(fc.NewWatchServiceHandler(watchService{a}, opts...))
	mux.Handle(fc.NewClusterServiceHandler(clusterService{a}, opts...))
	mux.Handle(fc.NewCertificateServiceHandler(certificateService{a}, opts...))
	mux.Handle(fc.NewJoinServiceHandler(joinService{a}, opts...))
	return gate.New(gate.Config{Methods: a.methods, Desk: a.desk, Leader: a.leader, Transport: a.Transport, Members: a.known, Log: a.Log}, mux)
}

// known are the API addresses of the members. A member that does not know itself yet, after a fresh start, knows the others no
// better: then there are none.
func (a *API) known() []string {
	v := a.Reader.View()
	if _, there := v.Member(a.ID); !there {
		return nil
	}
	return a.addresses(v, apiAddress)
}
