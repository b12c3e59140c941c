// Package ring decides which agent a node belongs to, once, when the node is placed: each node ranks the live
// agents of its group and hardware type by weighted rendezvous hashing, and takes the first that is below the
// cap of 102 % of its weighted share. The owner is then stored with the node, so that a lookup is one field,
// a join moves nothing, and a death moves exactly the nodes of the dead.
//
// The room is pure and has no floating point: every coordinator computes the same answer for ever.
package ring
