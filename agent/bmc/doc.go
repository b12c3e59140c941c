// Package bmc is what the agent asks of a machine's management controller: power, the boot device, who the
// machine is. It holds the interfaces that drivers implement and steps use, and no protocol: a driver (redfish,
// fake) is a leaf that imports this room and never another driver.
//
// A Factory turns a node's driver_info into a Client without a packet sent; the Client's methods do the talking,
// each under its caller's context. Calls on one Client come from one goroutine at a time (the agent has one queue
// per BMC).
//
// Errors are *fault.Error: Unavailable when the BMC cannot be reached or failed, or when the client's session was ended
// by somebody else in the middle of a change, which was then not made: ask again, if the right to act still stands;
// Timeout when it answered too late or never reached the state asked for, Unauthenticated when it refuses the password
// or its certificate is not trusted, Unsupported when it cannot do what was asked, Busy when it says so, Corrupt when
// its answer is not what the protocol says, and Invalid when driver_info is wrong.
package bmc
