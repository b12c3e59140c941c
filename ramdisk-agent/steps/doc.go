// Package steps carries out the steps that a machine does to itself: inventory, erase, choose a disk, write an image
// and a config drive, leave. Every step may be run twice, and may be cut at any point and run again to its end.
package steps
