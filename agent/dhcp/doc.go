// Package dhcp answers DHCPv4 on a rack's network: addresses for known ports and, by policy, for unknown machines,
// and the boot options that lead a machine's firmware to its boot program and iPXE to its script. It also answers IPv6
// router solicitations with an empty advertisement, without which iPXE waits 16 s for a router on an IPv4-only rack.
//
// One goroutine reads one socket: the bound on work in hand is the socket's buffer, and token buckets, one for each MAC
// and one for all, drop what comes faster. What to serve is decided by boot.Decide; addresses by lease.Pool; this room
// parses, asks both, and sends. Packets over 1,500 bytes, with more than 64 options, not of Ethernet, or not requests are dropped.
//
// A relayed request (giaddr set) is answered to the relay at Config.ReplyPort, or at its own source port if it says so
// by RFC 8357; others are answered by broadcast on the interface, or to the address that a renewing client has.
package dhcp
