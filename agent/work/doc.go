// Package work decides what an agent does with what it is told: it is a pure state machine, Step(now, event) →
// effects, with no I/O, no clock, no goroutine and no log. now is CLOCK_BOOTTIME and never goes back.
//
// What it keeps true:
//
//   - An order is (node, flow, step, attempt) under a token. Its identity is the first four; a token lower than
//     the highest seen for the node is refused, from whatever side it comes and after a restart too. A ramdisk step's
//     token is no lock, so it is refused below those of other orders only: the lock may be another's meanwhile.
//   - An attempt runs at most once under one token. A repeat of the order is answered with the outcome, for as
//     long as no newer order of the node has come; an attempt without an outcome that comes again under a higher
//     token, or after a restart, is run as resumed: its executor reads the world first.
//   - A node runs one attempt at a time. A newer one waits until the older one has been stopped.
//   - The lease counts TTL − 10 % − 100 ms from before the acknowledged renewal was sent. Past it no effect on a
//     BMC starts; nothing is dropped, and work goes on when the same session is renewed. Only the end of the
//     session drops work. Orders for a ramdisk are relayed in any case: the ramdisk is its own fence.
//   - Every queue is bounded: one order a node in work and one behind it, MaxNodes nodes, 64 renewals in flight.
//     A node that is gone is forgotten when its outcome is confirmed.
package work
