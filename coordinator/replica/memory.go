package replica

import "github.com/hashicorp/raft"

// Memory stands in for a data directory, so that clusters run in testing/synctest. It outlives the Replica that uses it,
// as a disk does. Its fields may be wrapped before the member is opened, to inject faults.
type Memory struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	made      bool
}

// NewMemory makes an empty one, without a member: see Bootstrap and Join.
func NewMemory() *Memory {
	s := raft.NewInmemStore()
	return &Memory{Logs: s, Stable: s, Snapshots: raft.NewInmemSnapshotStore()}
}
