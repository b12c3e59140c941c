package state

import "github.com/farrier-project/farrier/coordinator/node"

// Nodes at rest lie packed (see node.PackForm): a record of 1.5 KiB takes 4 KiB as a struct with maps, and half of that as
// the bytes that are hashed. A node that is touched is opened, and packed again by a later tick. Packing changes neither
// hash nor snapshot.

// packBatch is how many nodes one tick looks at.
const packBatch = 512

// packAtRest packs one node, if it is at rest.
func (s *State) packAtRest(id node.ID) { s.Nodes.Pack(id, (*node.Node).AtRest) }

// PackSome looks at the next nodes in order and packs those at rest.
func (s *State) PackSome() { s.packed = s.Nodes.PackSome(s.packed, packBatch, (*node.Node).AtRest) }
