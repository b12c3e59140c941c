// Package progress remembers what running steps say of themselves, for who asks this member. It is memory, and gone with the
// leadership.
package progress
