// Package lock holds what the exclusive right to act on a node is made of: the fencing token, and the queue of
// those who wait for a held lock.
//
// Who holds a lock is replicated state (coordinator/state); the queue is the leader's memory, kept by
// coordinator/dispatch. The room is pure.
package lock
