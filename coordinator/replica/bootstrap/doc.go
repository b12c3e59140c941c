// Package bootstrap makes members of a cluster, before they run: the first of a new cluster, an empty one that joins, and the first
// of a cluster whose members are all lost, from an archive.
//
// # Contract
//
//   - A member is made once: a place that holds one is refused with fault.Exists. What did not reach its end is no member.
//   - The first member of a new cluster leads when it is opened, with the command that makes the cluster as its first entry.
//   - A cluster that is made anew meets no token, position or index of the old one's again: it does not know how long that went on
//     after the archive, and leaves out much. The old members are no part of it.
package bootstrap
