// Package home is where a member of the cluster lives: a data directory with its log and its snapshots.
//
// # Contract
//
//   - A home is made once, by Create, and is one member's of one cluster: it is refused to others, and so is a second making. The
//     member file is written last, so that a directory without it holds no member, and what an attempt left is thrown away by the next.
//   - Open verifies all of it before the member can vote: the log's file as a whole, every record, the newest snapshot's description,
//     and that the log follows upon that snapshot. Errors are fault.Corrupt with the file, the index and what to do; fault.Busy when
//     another process has the files; fault.NotFound when there is no member; fault.Invalid when it is another's.
//   - Nobody else can read it: directories are of mode 0700, files of 0600.
//   - A Memory stands in for a directory, so that clusters run in one process and in testing/synctest.
//
// # Format
//
// The directory has member.json (cluster and member), raft.db (see boltfile and logstore) and snapshots (see snapshot).
package home
