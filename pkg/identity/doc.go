// Package identity says who is on the other end of a connection. Every part has a certificate from the cluster's own
// CA that carries its cluster, role, name and group in one URI:
//
//	farrier://CLUSTER/ROLE/NAME?group=GROUP&boot=BOOT
//
// TLS 1.3 is the only version spoken. Peers are checked by chain, cluster and role, never by host name: addresses of
// racks change, roles do not. A rack agent holds an intermediate CA that can make ramdisk certificates for its own group
// and nothing else; PeerOf refuses a chain that tries.
//
// Two callers have no certificate yet: a part that joins checks the CA by the hash in its join token, and a ramdisk
// checks its agent by the hash of its public key from the kernel command line. Both ignore dates, since their clock may
// say 1970.
package identity
