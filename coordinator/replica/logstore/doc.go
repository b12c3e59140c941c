// Package logstore keeps a member's log and its term and vote so that what is read is what was written: the checked form of a
// raft.LogStore and a raft.StableStore.
//
// # Contract
//
//   - Every record carries a checksum over where it belongs (cluster, member, index, term, type, or key) and what it holds, which
//     each read verifies.
//   - Verify reads everything before the member can vote: indexes contiguous from the snapshot, terms that never go back, term and
//     vote present. Anything else is fault.Corrupt with the file, the index and what to do: nothing is repaired by guessing.
//   - The first error of what is beneath latches: every later call fails.
//   - It knows what others ask about the log: how much has grown since the newest snapshot, which entries the state machine
//     sees (Visible), and whether a write hangs (OldestWrite).
//
// A record begins with its checksum, of 8 bytes: a value directly, an entry in its extensions.
package logstore
