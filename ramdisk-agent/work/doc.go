// Package work is what the ramdisk agent does with orders, as a pure state machine: Step takes an event and answers
// effects. It obeys the highest token it has seen, runs one step at a time, lets a running step go on when the same
// step is ordered again under another attempt or token, and answers repeats from memory.
package work
