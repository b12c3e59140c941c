// Package machine is raft's state machine over coordinator/apply: it applies the log's entries, one after the other.
//
// # Contract
//
//   - Newest is the state after the newest applied entry: immutable, and never older than an answer that Apply gave.
//   - An entry that cannot be read, or a command that is not known, changes nothing and fails the latch: nothing past it is applied,
//     shown or written to a snapshot.
//   - A snapshot pauses the log for as long as it takes to make a view. There is none while an archive's parts come in: they must stay
//     in the log.
//   - An uploaded archive is put in place at its last entry, under a generation above its own and that of the state that it replaces.
//   - Restore puts a whole state in place of the old one, which stays until then.
package machine
