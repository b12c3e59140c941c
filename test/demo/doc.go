// Package demo runs `farrier demo` as a newcomer does, without a terminal, and ends it as nobody should. What it leaves
// running is found in /proc, by the demonstration's directory, which is in the arguments of all its processes.
package demo
