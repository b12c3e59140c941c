// Package server composes a rack agent from its rooms and runs it under one errgroup: the journal, the task
// manager with its workers, the stream to the leader, the boot servers (DHCP, TFTP, HTTP), the ramdisks' TLS
// service, the image cache and the power sync. Join prepares a data directory for it.
//
// What the coordinators assign goes to the boot table, to the ramdisks' service and, without credentials, to the
// journal, so that an agent that restarts while it is cut off serves the boots that were authorised.
//
// Order of stopping: no new work is taken, steps in work are ended and their attempts left open, listeners close,
// sessions at BMCs are closed, the journal is written out.
package server
