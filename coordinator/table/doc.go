// Package table holds records in ordered, copy-on-write tables: what the replicated state is made of.
//
// A Table has records of one kind in the order of their keys. It keeps a hash, which is the sum of its rows', and calls its
// Spec's Index whenever a record comes, changes or goes, so that indexes (Trees) are always true. A record is immutable once
// it is in a table: a change puts another in its place. A record may lie packed, as text that its Spec makes of it.
//
// Changes go through a Log, which can take them back: a command is done wholly or not at all.
//
// Freeze is O(1) and gives a copy that never changes, for any number of readers. Everything else belongs to one goroutine.
package table
