// Package leader is how a member finds the leader: who leads now, when that is another one than before, and up to where in the log a
// read must wait. Questions for the index that come while one is on its way share the next.
//
// A member that is silent is not asked for ever: what waits for its answer ends with its Era, when another leader is known.
package leader
