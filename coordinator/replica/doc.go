// Package replica is one running member of the cluster: it turns proposals into log entries, has them applied, and answers
// whether a read is current.
//
// # Contract
//
//   - Propose has waiting commands packed into entries (batch) and answers each once its entry is applied here. Its errors say
//     what happened: NotLeader and NoQuorum mean that nothing was appended; UnknownOutcome means that it may have been, so the
//     caller reads or repeats with the same request id.
//   - ReadIndex answers on the leader only, and only after a quorum acknowledged an AppendEntries of this term
//     that was sent after the call began (transport). raft's own VerifyLeader accepts a reply to an earlier request, so a
//     leader that was paused and deposed could answer stale.
//   - Leading is true from the moment at which this term's barrier is applied here.
//   - View is the state after the newest applied entry: immutable, and never older than an answered Propose.
//   - Run returns a *fatal.Error when this member must not go on. Nothing here retries or restarts: the process is restarted by its
//     supervisor.
//
// # Rooms
//
// This room and those below it are the only users of hashicorp/raft. A member is made by bootstrap, before it runs. Here its parts
// are put together, and what needs more than one of them is done:
//
//	home       where it lives: boltfile (the log's file), logstore (checked records), snapshot
//	machine    raft's state machine: entry (what an entry looks like), archive (images of the state), upload (an archive in the log)
//	batch      many proposals in one entry
//	transport  how members reach each other
//	ballot     what members say of their states
//	fatal      why a member must stop; logger: raft's log lines
//
// # Integrity
//
// Whatever is read is what was written, or the member does not start, or stops: see home, logstore, snapshot and entry. Nothing is
// repaired by guessing. The first error of a store latches: every later call fails, the transport is closed, and Run returns. After
// a failed fsync nobody knows what the disk holds; a restart reads it again.
//
// # Snapshots
//
// A snapshot is taken after many entries, or when the log has grown by many bytes: under load by half of the newest
// snapshot, at rest by little, so that a start has little to apply. Behind it the log keeps entries for members that come back, by
// bytes too.
//
// # State hashes
//
// At the first entry past each multiple of 1,000, every member sends (index, hash of the state before that
// entry) to all others: a side message on the Raft port, outside the log, because a
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
package replica
