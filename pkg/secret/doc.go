// Package secret keeps secrets from leaking by accident: Value prints as "***" everywhere, and a Keyring seals
// what must be stored so that state, log and snapshots hold only boxes.
//
// The keyring lives in a file of mode 0600 outside the data directory. Boxes are XChaCha20-Poly1305 with a random
// nonce; the additional data names the field that the box belongs to, so that a box cannot be moved to another.
package secret
