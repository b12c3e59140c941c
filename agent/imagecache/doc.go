// Package imagecache fetches images once for a rack, and serves them to its machines.
//
// An image is named by the SHA-256 of its file; nothing enters the cache that does not have the digest that was asked
// for, so it matters little where the bytes came from. It is fetched by http or https only, without credentials, with
// redirects only to the same scheme, from no loopback, link-local or multicast address unless one is allowed, and
// never beyond the size caps. A cut download goes on where it stopped, also after a restart. Many requests for one image are one
// download: the first caller does the work, and if its context ends, the next one goes on from the bytes on disk.
//
// With the file goes a manifest of its decompressed content in chunks of 4 MiB: a SHA-256 of each, none for a
// chunk of zeros, and one of the whole. A machine verifies, skips and resumes by it.
//
// The directory is bounded in bytes; the least recently used image goes first, one that is being read, or held for a machine, never. Files
// that were in the cache before a restart are taken back with their manifests; bytes that rotted on disk are found by the
// machine that writes them, chunk by chunk.
package imagecache
