// Package site runs a whole Farrier on this computer: coordinators and rack agents as processes of their own, joined
// by tokens with mutual TLS, and software machines with a Redfish BMC each. The demonstration and the scenario tests
// stand on it. Everything is on loopback and below one directory; no root is needed, nothing is real hardware.
//
// Each child reads the end of a pipe whose other end only this process holds, and ends when it closes: nothing is left
// running, also when this process is killed.
package site
