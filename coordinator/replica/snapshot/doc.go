// Package snapshot keeps the snapshots of a member's state in a directory, and says when one is worth it.
//
// # Contract
//
//   - A Store is a raft.SnapshotStore. A snapshot carries a hash of its data and one of its description; Open verifies both before
//     the first byte is handed out. Errors are fault.Corrupt, and name the file and what to do.
//   - List answers the newest only: when it is damaged, an older one is no replacement, because the log behind it may be gone and
//     the member would come back with a hole.
//   - Close of a sink puts the snapshot in its place, or leaves none. The files are of mode 0600.
//   - A snapshot goes past the page cache, because the log's syncs wait behind what the page cache writes back.
//   - Watch tells when a snapshot is in place, of any store; Pace is a function of numbers.
//
// # Format
//
// A snapshot is one file: the data, then its description as JSON, then a fixed end with the length and the hashes. It is written
// beside its place, synced, renamed, and the directory is synced, so a file with the right name is whole unless the disk damaged
// it. The two newest are kept.
package snapshot
