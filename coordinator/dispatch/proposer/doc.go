// Package proposer puts into the log what the leader proposes of its own and in its agents' names: it gives bodies their headers,
// and brings as many commands as there are into proposals that the log takes.
package proposer
