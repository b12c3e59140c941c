// Package rpc serves the public API of a coordinator: every service of api/proto/farrier/v1 but the rack's.
//
// A request comes through the gate. A handler reads a state, has the message checked and its secrets sealed, and proposes one
// command at its desk, whose answer is read back from the state. Nothing is decided here that Apply does not check again.
//
// Reads are linearizable unless the request says stale.
//
// Rooms that rpc needs are interfaces of its own (Queue, Reader, Cluster, Progress). The room starts no goroutine but that of a
// watch's relay; the server room runs FollowLeader, Guard and Membership.
package rpc
