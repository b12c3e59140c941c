package fleet

import (
	"crypto/rand"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/message"
	"github.com/farrier-project/farrier/coordinator/node"
	"github.com/farrier-project/farrier/coordinator/request"
	"github.com/farrier-project/farrier/coordinator/state"
	"github.com/farrier-project/farrier/pkg/fault"
	"github.com/farrier-project/farrier/pkg/secret"
)

// Config is what the services need. All fields must be set.
type Config struct {
	Desk    *request.Desk
	Keyring *secret.Keyring
	// Queued is how many callers wait for a node's lock; zero on a member that does not lead.
	Queued func(node.ID) int
	// Progress is what the node's running step last said of itself: the leader's memory.
	Progress func(node.ID) (flow.ID, int, *farrierv1.Progress, bool)
	// FreeWorkers is what the agent last advertised: the leader's memory.
	FreeWorkers func(agent string) uint32
	// Rebalance names the moves that would bring resting nodes where new ones would go.
	Rebalance func(v *state.View, group string, limit int) []command.Move
}

// Service implements NodeService, PortService, LockService, RingService and AgentService. It is safe for concurrent use.
type Service struct {
	cfg Config
	in  message.Reader
	out message.Writer
}

// New is the services of one member.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, in: message.Reader{Seal: sealer(cfg.Keyring), NewID: newUUID}, out: message.Writer{Queued: cfg.Queued, Progress: cfg.Progress}}
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
