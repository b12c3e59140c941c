// Package upload brings the image of an archive through the log, so that it is restored on every member at one index.
//
// Its parts are entries that change nothing, and one more entry puts the image in place. So it is there or not, as any other entry,
// whoever dies when; raft's own Restore changes the leader before any other member, and a leader that dies in between is left with
// a state and an index that nobody else has. The price is that the log holds the archive until the next snapshot.
//
// # Contract
//
//   - Send is the leader's side: it submits the entries one after the other. An upload is of one term: another leader knows nothing
//     of it, and says so.
//   - Receiver is every member's side, fed with the entries in their order: all members see the same, and so agree on what is open,
//     what was given up and what is whole.
//   - The bytes are read back from the log and checked once more when the last entry comes.
//
// # Format
//
// A part is the upload's id (16 bytes), the part's number (4 bytes, from 0) and its bytes. The last entry is the id, the number of
// parts, the SHA-256 of their bytes (32 bytes), and the command that raises the generation.
package upload
