// Package rpc composes the public API of a coordinator: every service of api/proto/farrier/v1 but the rack's. The services are those
// of fleet, membership and watch, behind a gate.
//
// Rooms that they need are interfaces (Reader, Queue, Progress and those of the rooms). The room starts no goroutine; the server
// room runs FollowLeader, Guard and KeepVoters.
package rpc
