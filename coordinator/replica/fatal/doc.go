// Package fatal holds why a member of the cluster must stop: the latch of its first error, and the error for stored bytes
// that cannot be believed.
//
// # Contract
//
//   - The first error that a Latch is told of is the one that it answers from then on, to everybody: after a failed fsync nobody
//     knows what the disk holds, so that no later success counts. A restart reads the disk again.
//   - What happens at it happens once and in this order: it is logged, the member is cut off from its peers, Fired is closed.
//   - Nothing here ends a process: whoever runs the member returns the *Error, and main exits with its code.
package fatal
