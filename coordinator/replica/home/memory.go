package home

import "github.com/hashicorp/raft"

// Memory stands in for a data directory. It outlives the Home that is opened in it, as a disk does. Its fields may be wrapped
// before that, to inject faults.
type Memory struct {
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	made      bool
}

// NewMemory makes an empty one, without a member.
func NewMemory() *Memory {
	s := raft.NewInmemStore()
	return &Memory{Logs: s, Stable: s, Snapshots: raft.NewInmemSnapshotStore()}
}
