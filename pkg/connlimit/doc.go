// Package connlimit bounds the connections that a listener lets in, in all and per client address. What comes beyond a
// bound is closed at once: a waiting connection would hold a file descriptor too.
package connlimit
