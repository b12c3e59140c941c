// Package apply is what commands do to the state: Apply, the only code that changes it, and the rules behind it.
//
// Apply is a pure function of the state and a command: no I/O, no clock, no randomness, no goroutine, no
// logging, no floating point, and no range over an unsorted map. The same log gives the same tables, events and
// hash on every member. A command either does all that it says or nothing: validation happens inside Apply, and
// a refused or panicking command is undone.
//
// Facts come in as Outcome, Edge, PowerSeen, Tick; decisions are made here; effects are derived from a View by plan and
// carried out by dispatch. Nothing here starts anything.
//
// DESIGN.md beside this file has the words, the invariants and what was rejected.
package apply
