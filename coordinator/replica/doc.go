// Package replica keeps the replicated log: the only room that imports hashicorp/raft. It turns proposals into
// log entries, entries into state, and answers whether a read is current.
//
// # Contract
//
//   - Propose packs waiting commands into entries (group commit) and answers each once its entry is applied
//     here. Its errors say what happened: NotLeader and NoQuorum mean that nothing was appended; UnknownOutcome
//     means that it may have been, so the caller reads or repeats with the same request id.
//   - ReadIndex answers on the leader only, and only after a quorum acknowledged an AppendEntries of this term
//     that was sent after the call began. raft's own VerifyLeader accepts a reply to an earlier request, so a
//     leader that was paused and deposed could answer stale.
//   - Leading is true from the moment at which this term's barrier is applied here.
//   - View is the state after the newest applied entry: immutable, and never older than an answered Propose.
//
// # Integrity
//
// Every record of the log and of the stable store carries a checksum over where it belongs (cluster, member,
// index, term, type) and what it holds, verified on each read. Open verifies the whole file before the member
// can vote: both meta pages of bbolt with adjacent transaction ids, the page tree, every checksum, indexes
// contiguous from the snapshot, term and vote present. A snapshot carries a hash of its bytes and the hash of the
// state; only the newest is ever used. Anything wrong is a fault.Corrupt error that names the file, the index and
// what to do, and the member does not start: nothing is repaired by guessing.
//
// The first error of a store latches: every later call fails, the transport is closed, and Run returns a *fatal.Error.
// After a failed fsync nobody knows what the disk holds; a restart reads it again.
//
// # Snapshots
//
// A snapshot is taken after many entries, or when the log has grown by many bytes: under load by half of the newest
// snapshot, at rest by little, so that a start has little to apply. It is written past the page cache, because the log's
// syncs wait behind what the page cache writes back. Behind it the log keeps entries for members that come back, by bytes
// too.
//
// A user's archive is restored through the log, as parts and an entry that puts them in place, so that a member has the
// restored state or has not, at one index for all: see restore.go.
//
// # State hashes
//
// At the first entry past each multiple of 1,000, every member sends (index, hash of the state before that
// entry) to all others: a side message of its own protocol (ALPN) on the Raft port, outside the log, because a
// hash in a command would let only the leader speak, and then a wrong leader would stop its followers. A member
// whose hash differs from one that a majority of the voters agree on stops itself. Without a majority nobody
// knows who is right: it is logged as an error and counted in Stats.
//
// # Members
//
// A new member has no vote until it has caught up: AddVoter adds it without one, and gives it the vote when it had, within
// an election timeout, all that was committed. So a cluster of one grows at any size, and no commit waits for a member that
// reads a snapshot.
//
// # Watchdog
//
// A leader with a hung disk keeps its leadership, because heartbeats run beside log writes, and a follower with one counts as
// present. So when a write to the log or the stable store does not end for 3 s, or when an entry that a majority has is
// not committed for 3 s, the transport is closed and Run returns a *fatal.Error with exit code 70. To wait for a quorum, for a
// member that reads a snapshot, or for an entry that takes long to apply is no reason: another leader would wait as well.
//
// Nothing here retries or restarts: the process is restarted by its supervisor.
package replica
