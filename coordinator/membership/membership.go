package membership

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/leader"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/identity"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Level is the highest feature level that this build speaks.
const Level = 1

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

// Reader is what this member knows of the consensus.
type Reader interface {
	// ReadIndex is the index that a linearizable read must wait for. Leader only.
	ReadIndex(ctx context.Context) (uint64, error)
	Leader() (id, raftAddress string, known bool)
}

// Config is what the services need. All fields must be set.
type Config struct {
	ID     string         // this member's name
	Own    command.Member // where this member answers; its record in the state may be behind
	Desk   *request.Desk
	Leader *leader.Finder
	Reader Reader
	// Cluster is the Raft configuration.
	Cluster Cluster
	// HandOn gives the leadership to another member, and returns when that was tried.
	HandOn func()
	// Status is where the log stands, for people.
	Status  func() (term, committed uint64)
	Keyring *secret.Keyring
	Clock   clock.Clock
	Log     *slog.Logger
	// CertificateTTL is the life of certificates that Join and Renew issue.
	CertificateTTL time.Duration
}

// Service implements ClusterService, JoinService and CertificateService. It is safe for concurrent use.
type Service struct {
	cfg     Config
	revoked atomic.Pointer[revoked]
}

// revoked is what Revoked answered last.
type revoked struct {
	roster uint64
	keys   [][32]byte
}

// New is the services of one member.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

func (s *Service) authority(v *state.View) (*identity.CA, error) {
	return Authority(s.cfg.Keyring, v.Cluster())
}

// Authority is a cluster's CA, unsealed.
func Authority(keys *secret.Keyring, c *state.Cluster) (*identity.CA, error) {
	key, err := keys.Open(c.CAKey.KeyID, c.CAKey.Box, "ca")
	if err != nil {
		return nil, fault.Wrap("unseal CA", err)
	}
	return identity.LoadCA(c.CACert, key)
}

func apiAddress(m *command.Member) string  { return m.APIAddress }
func rackAddress(m *command.Member) string { return m.RackAddress }

// Known are the API addresses of the members. A member that does not know itself yet, after a fresh start, knows the others no
// better: then there are none.
func (s *Service) Known() []string {
	v := s.cfg.Desk.View()
	if _, there := v.Member(s.cfg.ID); !there {
		return nil
	}
	return s.addresses(v, apiAddress)
}

// Revoked are the keys of coordinators that are believed no more, as this member knows it. It may be asked at every call.
func (s *Service) Revoked() [][32]byte {
	v := s.cfg.Desk.View()
	last := s.revoked.Load()
	if last == nil || last.roster != v.Roster() {
		last = &revoked{v.Roster(), v.RevokedCoordinators()}
		s.revoked.Store(last)
	}
	return last.keys
}

// addresses lists one address of each member in the order of their ids, this one's included.
func (s *Service) addresses(v *state.View, get func(*command.Member) string) []string {
	var out []string
	if _, known := v.Member(s.cfg.ID); !known && get(&s.cfg.Own) != "" {
		out = append(out, get(&s.cfg.Own))
	}
	v.Members(func(m *command.Member) bool {
		if get(m) != "" {
			out = append(out, get(m))
		}
		return true
	})
	return out
}
