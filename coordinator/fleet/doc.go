// Package fleet serves what is about nodes: the nodes themselves with their ports and locks, and the agents and the ring that say
// who looks after them.
//
// A handler reads a state, has the message checked and its secrets sealed, and proposes one command at the desk, whose answer is
// read back from the state. Nothing is decided here that Apply does not check again; what is refused early is refused with better
// words. Reads are linearizable unless the request says stale.
package fleet
