// Package uplink is the agent's one stream to the leader: a bidirectional Connect stream over HTTP/2 with mutual
// TLS.
//
// It tries all known coordinator addresses, follows redirects, and comes back with back-off. On each stream the
// agent first says all that it holds; after that both sides say differences. Messages are batched: what piled up
// while one was being sent goes out in the next. A renewal is counted from before it is sent. A stream whose
// renewals are not acknowledged for Config.Stale is given up for the next coordinator; the session lives on, and is
// resumed by its name.
//
// Outcomes that are not confirmed are the task manager's to remember. Edges are remembered here, per node, and
// said again on each stream, until an assignment shows another boot attempt.
//
// An Uplink is the Sink and the Locker of agent/task. It is safe for concurrent use.
package uplink
