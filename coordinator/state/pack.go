package state

import "github.com/farrier-project/farrier/coordinator/node"

// Nodes at rest lie packed (see node.PackForm): a record of 1.5 KiB takes 4 KiB as a struct with maps, and half of that as
// the bytes that are hashed. A node that is touched is opened, and packed again by a later tick. Packing changes neither
// hash nor snapshot.

// packBatch is how many rows one tick looks at.
const packBatch = 512

// packAtRest packs one node, if it is at rest.
func (s *State) packAtRest(id node.ID) {
	if r, ok := s.nodes.rows.get(row[node.ID, node.Node]{key: id}); ok && r.rec != nil && r.rec.AtRest() {
		s.nodes.repack(r)
	}
}

// packSome looks at the next rows in order and packs those at rest.
func (s *State) packSome() {
	var rows []row[node.ID, node.Node]
	seen, last := 0, node.ID("")
	s.nodes.rows.ascend(row[node.ID, node.Node]{key: s.packed}, func(r row[node.ID, node.Node]) bool {
		if seen++; seen > packBatch {
			last = r.key
			return false
		}
		if r.rec != nil && r.rec.AtRest() {
			rows = append(rows, r)
		}
		return true
	})
	for _, r := range rows {
		s.nodes.repack(r)
	}
	s.packed = last
}

// node is data's, but opens a packed node once although a command looks at it several times.
func (s *State) node(id node.ID) *node.Node {
	r := s.nodeRow(id)
	if r.rec != nil || r.packed == "" {
		return r.rec
	}
	if s.opened == nil || s.opened.ID != id || s.openedFrom != r.packed {
		s.opened, s.openedFrom = s.nodes.open(r), r.packed
	}
	return s.opened
}

// nodeRow is the node's row, the zero row when there is none. A command looks up the same node several times.
func (s *State) nodeRow(id node.ID) row[node.ID, node.Node] {
	if s.nearest.key != id || s.nearestAt != s.nodes.rows.changes || id == "" {
		s.nearest, _ = s.nodes.rows.get(row[node.ID, node.Node]{key: id})
		s.nearestAt = s.nodes.rows.changes
	}
	return s.nearest
}
