// Package server composes a coordinator from its rooms and runs it: three listeners (the API, Raft, the agents'
// streams), the replica, dispatch and the API, under one errgroup. Init, Join and Rejoin prepare a data directory
// for it.
//
// Order of stopping: the listeners refuse new connections, requests in work get StopTimeout, streams end at once,
// then dispatch and the replica stop. A replica that must not go on (its store failed, nothing commits) ends the
// process with code 70 (EX_SOFTWARE of sysexits.h): the supervisor starts it again.
package server
