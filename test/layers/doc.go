// Package layers holds the table of which room may import which, as a test.
package layers
