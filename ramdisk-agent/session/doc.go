// Package session composes the ramdisk agent: it reads the command line, finds out which machine this is, talks to
// the agents, runs the steps they order, and says how the machine is to be left. It holds no rule of its own: work
// decides, steps act, uplink talks.
package session
