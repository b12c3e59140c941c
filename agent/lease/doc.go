// Package lease hands out IPv4 addresses: the reserved one of a known port, or one of a subnet's pool.
//
// It is pure: no I/O; the time is an argument, a duration on one clock of the caller's choice. Reservations are not
// kept here: they are an argument of each request (the table of machines is their one home), so a reserved address
// is right from the first packet after a restart, and is never given from the pool to another machine.
//
// The agents of a group have disjoint pools, split in the configuration: two agents never need to agree on a lease. A
// machine that goes from one agent to another takes its address along: the new owner confirms a known machine's address
// outside its own pool, and the old owner keeps it. The old owner does not hear for how long: it takes the address back when
// it hears that the machine took another or gave it up, or when the machine returns; else it gives it to others last, when
// the pool is exhausted. A reserved address is not given while another machine's lease on it runs.
// Pool is not safe for concurrent use; the DHCP server has one and a mutex.
package lease
