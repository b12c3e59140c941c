// Package downlink serves the ramdisks of the machines that this agent booted: who they are, that they live, what
// they are to do, and what came of it.
//
// A ramdisk proves itself once, by Lookup with its boot attempt's id and secret; the first key that does claims the
// attempt, and gets a certificate for this node and this boot from the agent's ramdisk CA. The same key may ask again and gets
// the same answer. Another key means that the secret leaked or two machines answer to one name: both are cut off and
// the edge second_claim goes up. A ramdisk on another machine than the one under the node's BMC is refused (Expect), and
// wrong_machine goes up. After Lookup every call is by certificate; one issued by another agent of the
// group is as good, for that is how a ramdisk moves on when its agent dies.
//
// Orders come from the owner of the node's work by Deliver; a token below an earlier order's is refused. Each is
// handed to the ramdisk as its next command until its outcome is reported, and the ramdisk reports the outcome until the owner
// says that it is committed (Confirm). Heartbeats end here: only edges (first contact, silence, a second claim, another
// machine, an unexpected boot) go up, and those that a coordinator has not shown to know are told again. A ramdisk whose boot
// attempt is over is told to halt.
//
// Everything is in memory: after a restart the assignments and open orders come again from the leader, and the
// ramdisks' certificates still hold.
package downlink
