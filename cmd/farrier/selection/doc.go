// Package selection is the fields of an answer that somebody asked for: which, and in which order. It reads the names, says
// what a coordinator need send of them, and takes them out of an answer for a table, JSON or YAML. It does no I/O.
package selection
