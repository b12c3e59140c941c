// Package message stands between the API's messages and the core's values: what a request about a node, a port or a deployment may
// hold, and how these look in an answer.
//
// On the way in, a Reader checks every field against its bound, seals what is secret, and makes the body of a command; every error
// names the field. It refuses early, with the best words; what must hold for ever Apply checks again. On the way out, a Writer
// hides secrets. Names that people write (a name, a UUID or its beginning, a MAC address) are resolved here, and so are masks.
//
// The room is pure: chance and the keyring come with the Reader, the leader's memory with the Writer.
package message
