// Package transport is how coordinators reach each other.
//
// # Contract
//
//   - Transport wraps a raft.Transport. It counts AppendEntries and their acknowledgements, so that a leader can tell which were
//     answered by a quorum and sent after a moment: Mark, then Quorum. raft's own VerifyLeader accepts a reply to an earlier
//     request. It tells what each peer has of the log. Once closed, nothing passes.
//   - Port is the Raft port: raft's stream layer over mutual TLS, for coordinators of this cluster only. Its user says who of them is
//     refused, and the port cuts open connections when it is told that this has changed (CutRefused).
//   - Side messages are of the port's user: a protocol of their own (ALPN) on the same port. They may be lost, and come with the
//     name in the sender's certificate.
//   - Network and Line are the same for members of one process, with cuts between them, so that a cluster runs in testing/synctest.
//
// Two goroutines and more are the port's own, one for each connection that it admits: Close ends them, Wait waits.
package transport
