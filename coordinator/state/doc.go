// Package state is the facts about the cluster: tables of immutable records, the indexes that follow from them, the events that
// tell of their changes, their hash and their snapshot. What may change, when and how is the rules' (coordinator/apply): this
// room knows no flow's course and no right of an owner.
//
// # Writing
//
// A command writes between Begin and the next Begin: records through the tables' Put and Drop with the State's Log, the rest
// in Root, and an event for each change of note by Emit. Rollback takes all that back to a Mark: a command is done wholly or
// not at all. Indexes, counts of nodes and the hash are true after each write. The room is pure but for ReadSnapshot's
// goroutine, which ends with it: no clock, no randomness, no logging, and no range over an unsorted map.
//
// # Concurrency
//
// One goroutine at a time may use a State, View included: replica holds a lock around a command, and around View, which it
// calls when somebody reads. A View is immutable and safe for any number of readers, for ever.
//
// # Events
//
// Every change of note adds an event at (log index, ordinal); see the Event constants for types and fields. The
// newest 50,000 are kept and are part of the state, so all members have the same floor. Locks that agents take for a
// moment, with no flow behind them, are no events: they would wash the others out.
package state
