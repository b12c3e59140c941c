// Package progress is what running steps say of themselves: bytes done, of how many, and how fast.
package progress
