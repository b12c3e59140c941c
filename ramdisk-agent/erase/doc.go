// Package erase takes a tenant's data off a machine's disks, and makes sure that it is gone: what was discarded or overwritten is
// read back in samples, and what was not seen was not erased.
package erase
