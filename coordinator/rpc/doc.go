// Package rpc serves the public API of a coordinator: every service of api/proto/farrier/v1 but the rack's.
//
// A request passes, in this order: the caller's certificate, the table of methods and roles, the roster of certificates, its
// size, and, for whatever the leader must decide, the way to the leader: a follower sends the same request on with its own
// certificate and names the caller and its key in headers that only coordinators may set; the leader asks its roster about
// both. A read asks the roster again, as of the view that it answers from. Then it is validated, its secrets
// are sealed, and it becomes one command, whose answer is read back from the state. Nothing is decided here that
// Apply does not check again.
//
// Reads are linearizable unless the request says stale. Every error is typed, and refusal puts it on the wire.
//
// Rooms that rpc needs are interfaces of its own (Proposer, Queue, Reader, Cluster, Progress). The room starts no
// goroutine but those of the Forwarder, Guard and Membership, which the server room runs.
package rpc
