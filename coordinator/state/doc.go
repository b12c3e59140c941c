// Package state is the replicated state machine: tables of immutable records, and Apply, the only code that
// changes them.
//
// Apply is a pure function of the state and a command: no I/O, no clock, no randomness, no goroutine, no
// logging, no floating point, and no range over an unsorted map. The same log gives the same tables, events and
// hash on every member. A command either does all that it says or nothing: validation happens inside Apply, and
// a refused or panicking command is undone.
//
// Facts come in as Outcome, Edge, Tick; decisions are made here; effects are derived from a View by plan and
// carried out by dispatch. State never starts anything.
//
// # Concurrency
//
// One goroutine at a time may use a State, View included: replica holds a lock around Apply, and around View, which it
// calls when somebody reads. A View is immutable and safe for any number of readers, for ever.
//
// # Events
//
// Every change of note adds an event at (log index, ordinal); see the Event constants for types and fields. The
// newest 50,000 are kept and are part of the state, so all members have the same floor. Locks that agents take for a
// moment, with no flow behind them, are no events: they would wash the others out.
//
// DESIGN.md beside this file has the words, the invariants and what was rejected.
package state
