package replica

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/farrier-project/farrier/coordinator/replica/archive"
	"github.com/farrier-project/farrier/coordinator/replica/home"
	"github.com/farrier-project/farrier/coordinator/replica/logger"
	"github.com/farrier-project/farrier/coordinator/replica/transport"
	"github.com/farrier-project/farrier/pkg/clock"
	"github.com/farrier-project/farrier/pkg/identity"
)

const (
	maxAppend       = 256 // entries in one AppendEntries
	logCacheEntries = 16
)

// Defaults of Config.
const (
	DefaultElection = 500 * time.Millisecond
	LANElection     = 300 * time.Millisecond // profile "lan"
	DefaultWatchdog = 3 * time.Second
)

// Config says which member this is and where it keeps its files.
type Config struct {
	home.Place // made by the room bootstrap

	// Advertise is where the other members reach this one's Raft port. Default: the listener's address.
	Advertise string
	Listener  net.Listener    // the Raft port; Open owns it
	Identity  *identity.Store // role coordinator, name Member

	// Election is the election and heartbeat timeout. Default 500 ms; LANElection in the profile "lan".
	Election time.Duration
	// Watchdog is how long a write to the log may take, and an entry that a majority has may wait for its commit. Default 3 s.
	Watchdog time.Duration
	// SnapshotEvery is the number of entries between snapshots. Default 8,192. TrailingLogs stay behind for members
	// that come back, fewer of them if they have more than SnapshotBytes. Default 10,240.
	SnapshotEvery, TrailingLogs uint64
	// SnapshotBytes is by how many bytes the log grows before a snapshot is taken, however few its entries are: a member
	// that starts applies all of them again. Half of the newest snapshot, if that is more; a quarter of SnapshotBytes at rest.
	// Default 32 MiB.
	SnapshotBytes int64
	// MaxArchive is the largest user snapshot that RestoreSnapshot accepts, in bytes. Default 8 GiB.
	MaxArchive int64

	Clock clock.Clock
	Log   *slog.Logger

	// Network replaces sockets, as Place.Memory replaces files, so that a cluster runs in one process and in testing/synctest.
	Network *transport.Network
	// Transport replaces the network's transport.
	Transport raft.Transport
}

func (c Config) withDefaults() (Config, error) {
	if err := c.Place.Validate(); err != nil {
		return c, err
	}
	if c.Election == 0 {
		c.Election = DefaultElection
	}
	if c.Watchdog == 0 {
		c.Watchdog = DefaultWatchdog
	}
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 8192
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 32 << 20
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 10240
	}
	if c.MaxArchive == 0 {
		c.MaxArchive = archive.DefaultMax
	}
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func (c Config) raft() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.Member)
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = c.Election, c.Election, c.Election
	rc.CommitTimeout = 50 * time.Millisecond
	rc.MaxAppendEntries = maxAppend
	rc.BatchApplyCh = true
	rc.ShutdownOnRemove = false
	rc.SnapshotThreshold, rc.TrailingLogs = c.SnapshotEvery, c.TrailingLogs
	rc.SnapshotInterval = 30 * time.Second
	rc.NoLegacyTelemetry = true
	rc.Logger = logger.New(c.Log)
	return rc
}

// sender carries messages of this room beside raft's own.
type sender interface {
	// Send delivers a message to the member at the Raft address; it may be lost.
	Send(ctx context.Context, address string, message []byte) error
}
