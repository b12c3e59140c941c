// Package watch tells programs what happens: the events of the state in the order of the log, on every member, and what running steps
// say of themselves, which is in the leader's memory and relayed from there.
//
// A stream says again and again up to where all was sent (synced), and asks the leader first: a member that is cut off ends its
// streams. Who comes back with a position that is no longer in the state is told so (compacted), and lists again. A stream ends
// with its caller's certificate.
//
// Each stream may have one goroutine, its relay from the leader, and waits for its end.
package watch
