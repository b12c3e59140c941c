// Package command is the closed set of changes that can be asked of the replicated state, and their form in the
// log (api/proto/farrier/raftlog/v1).
//
// A command is a value: everything that is not a function of the state was settled by its proposer. The codec
// is exact: what Decode returns is what Encode was given, apart from these normal forms: times are UTC and
// without a monotonic reading, and empty maps and slices are nil. Entries concatenate: Encode(a, b) is
// Encode(a) followed by Encode(b), so commands are encoded where they are made and packed without a copy of
// their values. A body that this build does not know is a fault.Version error, never skipped: its meaning is
// unknown, so the member must stop.
//
// The records shared with the snapshot (node, port, flow, settings) are coded here as well, in a form that is
// the same bytes for equal records (maps are sorted), so that hashes over it agree between members.
package command
