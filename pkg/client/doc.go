// Package client is how programs speak to Farrier's coordinators.
//
// A Client knows the addresses of several coordinators and uses one that answers; any of them serves any request. Every
// call that changes something carries a request id, so that a call whose answer was lost is sent again safely: it is
// executed at most once. Watch follows events across restarts of coordinators without a gap. A client that is used renews
// its certificate in time and learns the addresses of members that join. Errors are *fault.Error (see Fault) with the
// kind, advice and details that the server sent.
//
//	c, err := client.Open("/etc/farrier/operator")
//	res, err := c.Nodes.GetNode(ctx, &farrierv1.GetNodeRequest{Node: "web-1"})
package client
