// Package request is what becomes of a request: it reads a state that is as new as itself, its commands are stamped and put in the
// log, it may wait for a node's lock, and its repeat has the first answer. Handlers do all that at a Desk, with the caller and the
// id that the gate has put in the context.
//
// A caller whose certificate the roster does not have is refused; a call that stays for long is held, and ends when the certificate
// is taken back.
package request
