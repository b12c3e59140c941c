// Package demo is `farrier demo`: a whole Farrier on one computer, from nothing to machines that run a deployed image,
// told line by line. The daemons are the real binaries, as processes with mutual TLS; the machines are simulated
// (test/lab), or emulated with --vm, and every line of what one does says so.
package demo
