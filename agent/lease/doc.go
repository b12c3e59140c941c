// Package lease hands out IPv4 addresses: the reserved one of a known port, or one of a subnet's pool.
//
// It is pure: no I/O; the time is an argument, a duration on one clock of the caller's choice. Reservations are not
// kept here: they are an argument of each request (the table of machines is their one home), so a reserved address
// is right from the first packet after a restart, and is never given from the pool to another machine.
//
// The agents of a group have disjoint pools, split in the configuration: two agents never need to agree on a lease.
// Pool is not safe for concurrent use; the DHCP server has one and a mutex.
package lease
