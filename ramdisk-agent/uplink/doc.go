// Package uplink is how a ramdisk talks to its rack agents: it dials out, pins their keys, ignores the dates of their
// certificates, and turns to the next agent of the group whenever one fails. The first agents and their pins come
// from the kernel command line; agents name the others.
package uplink
