// Package outcome is how a command ends: the exit status that scripts read, and the error that people read, with what to
// do next in the words of the command line.
package outcome
