// Package steps runs the steps that the agent itself carries out: the BMC's (power, management) and its own (boot).
//
// Each try asks first whether the step is done; if not, the intent goes to the journal, the effect is made under
// the deadline of one changing call, and the world is read back: only what was read counts, never an accept code.
// An effect is tried three times with back-off as long as its error is one of the way. A resumed order begins
// with the same question, so what an earlier run has done is found, not done again.
//
// Steps are data (see table): a set has a read and a do. Resets are split into sets by the flow: off, read back, on, read
// back. A soft power off asks once, and waits; it never cuts the power.
//
// Relay hands ramdisk steps on; an order to write an image first makes the group's cache fetch it, and a fetch
// that fails is the step's failure.
package steps
