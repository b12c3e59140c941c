// Package scenario holds what Farrier promises as tests: real daemons as processes, software machines (simulated), and
// things that go wrong while they work.
package scenario
