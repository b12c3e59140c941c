// Package bootenv is the table of the machines that this agent may boot: nodes assigned to it, with the MACs and
// addresses of their ports and their open boot attempt.
//
// It is pure: no I/O, no clock. The boot servers (dhcp, tftp, httpboot) read it for each packet and request, in
// constant time by MAC, by address and by boot id; the owner of assignments writes it. A Machine that was put in is
// never changed, so readers may keep it. Table is safe for concurrent use.
//
// Time is a duration on one clock that the owner chose (pkg/clock's Boottime), so that neither a wrong date nor a
// suspended host can keep a boot attempt open.
package bootenv
