// Package archive writes the state of a cluster, and reads it again: an image is what a snapshot holds, an archive is a user's.
//
// # Contract
//
//   - What is read is what was written: an image carries the hash of its state, an archive the SHA-256 of all of it. Anything else is
//     fault.Corrupt, and one byte more than the bound fault.TooLarge.
//   - Read copies the image as it is while it verifies it, so that who uses it need not hold the archive in memory: a Spool takes
//     it. Nothing of it may be used before Read has returned without an error.
//   - Secrets in it are sealed; the key is not part of it.
//
// # Format
//
// An image is the index applied, the hash of the state, and the state. An archive is a magic line, a header as JSON with its length
// before it, the image in chunks with their lengths before them, a zero length, and the SHA-256 of all before it.
package archive
