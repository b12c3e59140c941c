// Package plan derives from a view what ought to be going on: the order that a node's owner should be working
// on, what an agent should know of a node, the commands that are due, and the moves of a rebalance. It is level
// triggered: the same view gives the same plan, so a new leader plans again and nothing is lost or repeated.
// The package is pure; all its functions are safe for concurrent use.
package plan
