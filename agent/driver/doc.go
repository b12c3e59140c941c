// Package driver composes hardware types. A Type is a list of implementations, one per interface kind, each made
// once when the agent starts; it is composed here as data and put together in agent/server, not by registration.
// Every step that an interface offers is data too: who runs it, its class, its arguments.
//
// BMCs gives turns: one serial queue per BMC, in order of asking, with a minimum gap between turns and a bounded
// length. A slow or dead BMC holds up those who wait for it and nobody else. A node's client is kept between
// turns, with its session, and closed when the node leaves or its driver_info changes.
//
// Before the first effect at a BMC with sessions the client's own session is recorded, in the journal and with the
// coordinators (Sessions), and those that earlier owners recorded are ended: what an earlier owner still has on its way
// is refused by the BMC.
//
// Simulator is the ramdisk of machines that are not there: it makes first contact and ends ramdisk steps after
// delays that driver_info sets, and marks everything it says as simulated.
package driver
