// Package entry is what raft's log entries of coordinators look like.
//
// An entry is a byte that says what it holds, a checksum over cluster and content, and the content. The checksum travels with the
// entry from the proposer to each member's Apply, through memory and network, which that of the store does not.
//
// The format is for ever. The room is pure.
package entry
