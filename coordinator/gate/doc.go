// Package gate is the HTTP side of the API. A request passes, in this order: the caller's certificate, the table of methods and
// roles, the roster of certificates, its size, and, for whatever the leader must decide, the way to the leader: a follower sends
// the same request on with its own certificate and names the caller and its key in headers that only coordinators may set; the
// leader asks its roster about both. A request is sent on once: who gets it and does not lead says so. What surely was not executed
// is tried again at the next leader, and what may have been only if a repeat is harmless.
//
// The gate knows no service: it has the table of methods, and a handler behind it.
package gate
