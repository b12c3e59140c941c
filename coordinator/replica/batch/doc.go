// Package batch is the group commit in front of raft: commands that many callers propose at a time share a log entry.
//
// # Contract
//
//   - Proposals are appended in their order, each once, in one entry; an entry of another kind than commands has one proposal.
//   - A caller that leaves before its proposal is in an entry takes it along: it is not appended. One that leaves after that is told
//     that nobody knows (fault.UnknownOutcome).
//   - What waits and what is on its way is bounded: a full queue is fault.Busy.
//   - Content is copied once, into its entry.
package batch
