// Package powersync sees what nobody ordered: somebody pressed the button, a BMC died. It reads the power of each node that rests,
// once every interval, and says what the coordinators do not know.
//
// It changes nothing: it takes no lock, and has no call that could switch a machine. Nor is it in anybody's way: a reading begins
// only if nothing is ordered for the node and nobody has its BMC, and ends when somebody comes for it. The moments of the
// nodes are spread over the interval by their ids, so that neither a start nor a takeover is a storm, and AtOnce bounds how many
// BMCs are waited for.
//
// What is said is level, not edge: a power that differs from the assignment's, or the failure of Failures readings in a row, is
// said at each reading until the assignment shows that it was taken in. So nothing is remembered here for a lost stream, and what
// the coordinators leave alone, because work began meanwhile, is seen again. Nothing is read while the lease has lapsed: it could
// not be said, another agent may be reading already, and readings that fail because a rack is cut off are no BMC's fault.
//
// schedule is pure: what is due, and what follows from a reading. Sync carries it out.
package powersync
