// Package waitlist is the shell of the lock queue: callers that meet a held lock wait for its node in line, first come, first served,
// each with its whole command, which is proposed when its turn comes. It is the leader's memory: when the leadership is lost all are
// told, and ask again with the same request ids. Who does not wait never goes before those who do.
package waitlist
