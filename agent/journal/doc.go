// Package journal is the agent's memory of what it did under attempts that may still be open: opened runs with
// their intents and outcomes, the highest token per node, boot attempts, address leases, and the URIs of the BMC
// sessions it opened. It never holds BMC credentials or a step's secret arguments.
//
// One directory belongs to one process (flock on "lock"). It holds a random journal id, made once, and an
// incarnation that rises with each Open, on disk before Open returns. Each record carries a CRC-32C over table,
// key and value, verified when it is read; what fails is Corrupt and the agent does not start on it.
//
// Writes are grouped: Put joins the open batch and returns at once, Wait returns when the batch is on disk
// (fsync). Batches are written in the order in which they were joined, one transaction each. A Put that nobody
// waits for goes along with the next batch, or with Flush. The first failure to write latches: the disk cannot be
// trusted after it. A record that no journal can hold is refused and harms no other.
//
// A Journal is safe for concurrent use.
package journal
