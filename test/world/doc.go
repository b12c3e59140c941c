// Package world is a cluster of coordinators' APIs on loopback for tests of the rooms that serve them: real connections and
// certificates over one model of the log, in which a command is applied at once and the test says who leads.
package world
