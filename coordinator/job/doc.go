// Package job is the rules of a node's work: what a verb, a report, an edge, a reading of its power, a timeout, a lock and a change
// of the owner do to the node and to its open flow.
//
// A job is one node and its flow in the hands of the command in work. It is taken, changed, goes on as far as it can, and is
// written back; nobody outside this room holds one. Other rooms say what happened to a node, by its id, and Jobs does what
// follows.
//
// Jobs also has the concurrency limits: Admit, which the end of each command is for, lets queued flows start where a place fell free.
//
// The room is pure. The words and the invariants are in coordinator/apply's DESIGN.md.
package job
